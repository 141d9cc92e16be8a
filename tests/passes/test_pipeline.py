"""Pipeline text, registry and plugins, the pass manager's checks and observers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from typing_extensions import override
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnknownLoc
from xdsl.passes import ModulePass

from pimc.diagnostics import InputError, InternalError, PimcError, UsageError
from pimc.ir import nn
from pimc.ir.context import parse_module, print_module
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext, format_pass
from pimc.passes.observers import DumpIr, PrintIr, TimePasses
from pimc.passes.pipeline import PassManager, build_pass, format_pipeline, parse_pipeline, split_pipeline
from pimc.passes.registry import PassRegistry, declared_passes, describe

MODULE = """
func.func @main(%x: tensor<1x1x4xf16>) -> tensor<1x1x4xf16> {
  %a = "nn.silu"(%x) : (tensor<1x1x4xf16>) -> tensor<1x1x4xf16> loc("model.act":0:0)
  %b = "nn.silu"(%x) : (tensor<1x1x4xf16>) -> tensor<1x1x4xf16> loc("model.act":0:0)
  %c = "nn.add"(%a, %b) : (tensor<1x1x4xf16>, tensor<1x1x4xf16>) -> tensor<1x1x4xf16> loc("model.sum":0:0)
  %d = "nn.neg"(%c) : (tensor<1x1x4xf16>) -> tensor<1x1x4xf16> loc("model.dead":0:0)
  func.return %c : tensor<1x1x4xf16>
}
"""


@dataclass(frozen=True)
class OptionsPass(Pass):
    """A pass with an option of every type.

    More about it.
    """

    name = "options"
    count: int = 3
    ratio: float = 0.5
    flag: bool = False
    mode_name: str = "paper"
    many: tuple[int, ...] = ()
    names: tuple[str, ...] = ("a", "b")
    maybe: int | None = 7

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        module.attributes["test.options"] = StringAttr(str(self))


class OneRegistry(PassRegistry):
    """A registry with some classes of this file."""

    def __init__(self, *classes: type[ModulePass]) -> None:
        super().__init__()
        self._loaded.update({class_.name: class_ for class_ in classes})


@pytest.mark.parametrize(
    "pass_",
    [
        OptionsPass(),
        OptionsPass(count=-4, ratio=1e-5, flag=True),
        OptionsPass(ratio=2e20, mode_name="true", maybe=None),
        OptionsPass(mode_name='a "quoted", {odd} \\ name=1', many=(1, 2), names=("x y",)),
        OptionsPass(mode_name="module:function", many=(5,), names=("1", "true")),
    ],
)
def test_text_and_object_round_trip(pass_: OptionsPass) -> None:
    registry = OneRegistry(OptionsPass)
    assert parse_pipeline(str(pass_), registry) == (pass_,)
    both = (pass_, OptionsPass())
    assert parse_pipeline(format_pipeline(both), registry) == both
    assert parse_pipeline(format_pass(pass_, include_default=True), registry) == (pass_,)


def test_convenient_spellings() -> None:
    registry = OneRegistry(OptionsPass)
    text = " options{mode_name=cost ratio=2 flag} , options{mode-name=cost many=1,2},cse "
    first, second, third = parse_pipeline(text, registry)
    assert first == OptionsPass(mode_name="cost", ratio=2.0, flag=True)
    assert second == OptionsPass(mode_name="cost", many=(1, 2))
    assert third.name == "cse"
    assert parse_pipeline("", registry) == ()
    assert split_pipeline('a{x=1,2},b{s="},"}') == ["a{x=1,2}", 'b{s="},"}']


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("canonicalise", "no pass 'canonicalise'", "canonicalize"),
        ("zzzzzz", "no pass 'zzzzzz'", "cse"),
        ("options{cuont=4}", "no option 'cuont'", "did you mean count"),
        ("options{blah=4}", "no option 'blah'", "count: int = 3"),
        ("options{count=many}", "option 'count' of pass 'options' must be int, not many", None),
        ("options{many=1,x}", "option 'many'", None),
        ("options{count=1", "do not match", "write a pipeline"),
        ("options{=1}", "Expected argument name", "write a pipeline"),
        ("options}", "do not match", "write a pipeline"),
        ("options,,cse", "missing", "write a pipeline"),
        ("options{count=1}x", "Expected", "write a pipeline"),
    ],
)
def test_errors_say_what_is_wrong(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=message) as info:
        parse_pipeline(text, OneRegistry(OptionsPass))
    if hint is not None:
        assert hint in str(info.value.hint)


def test_stock_passes_work_and_keep_locations() -> None:
    module = parse_module(MODULE)
    PassManager(parse_pipeline("cse,dce,canonicalize")).run(module)
    names = [op.name for op in module.walk() if op.name.startswith("nn.")]
    assert names == ["nn.silu", "nn.add"]
    assert 'loc("model.sum":0:0)' in print_module(module)


def test_describe_and_scan() -> None:
    info = describe(OptionsPass)
    assert info.summary == "A pass with an option of every type."
    assert "mode-name: str = paper" in info.options
    assert {"canonicalize", "cse", "dce"} <= set(PassRegistry().names())
    source = "class P(ModulePass):\n    name: ClassVar[str] = 'p'\n    x: int = 1\nclass Q(Base):\n    name = 'q'\n"
    assert list(declared_passes(source)) == [("p", "P")]


PLUGIN = '''
from dataclasses import dataclass
from pimc.passes.base import Pass

@dataclass(frozen=True)
class Mine(Pass):
    """My pass."""
    name = "{name}"
    depth: int = 1

    def run(self, module, context):
        for op in module.walk():
            context.explain(op, f"depth {{self.depth}}")
'''


def test_plugin_file(tmp_path: Path) -> None:
    path = tmp_path / "my_pass.py"
    path.write_text(PLUGIN.format(name="my-pass"))
    registry = PassRegistry([str(path)])
    context = PassManager(parse_pipeline("cse,my-pass{depth=2}", registry)).run(parse_module(MODULE))
    found = [decision for decision in context.decisions if "model.sum" in decision.where]
    assert [(d.pass_name, d.op, d.reason) for d in found] == [("my-pass", "nn.add", "depth 2")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no pass"),
        ("1 / 0", "ZeroDivisionError"),
        (PLUGIN.format(name="cse"), "already a pass 'cse'"),
        (None, "no such plugin file"),
    ],
)
def test_bad_plugins(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "plugin.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        PassRegistry([str(path)])
    with pytest.raises(UsageError, match="cannot load the plugin"):
        PassRegistry(["no.such.module"])


@dataclass(frozen=True)
class LosesLocation(Pass):
    """Drops a location."""

    name = "loses-location"

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        for op in module.walk():
            if isinstance(op, nn.AddOp):
                op.location = UnknownLoc()


@dataclass(frozen=True)
class ClaimsAnnotated(Pass):
    """States a stage that the module is not in."""

    name = "claims-annotated"
    produces = Stage.ANNOTATED

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        """Nothing."""


@dataclass(frozen=True)
class NeedsPlaced(ClaimsAnnotated):
    """Requires a stage."""

    name = "needs-placed"
    requires = Stage.PLACED


@dataclass(frozen=True)
class Breaks(Pass):
    """Leaves an operation that does not verify."""

    name = "breaks"

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        for op in module.walk():
            if isinstance(op, nn.AddOp):
                op.operands = (op.lhs,)


@pytest.mark.parametrize(
    ("pass_", "error", "message"),
    [
        (LosesLocation(), InternalError, "after pass 'loses-location' 1 operation"),
        (ClaimsAnnotated(), InternalError, "after pass 'claims-annotated' nn.silu: has no pim.bytes"),
        (NeedsPlaced(), InputError, "pass 'needs-placed' needs a placed module: nn.silu"),
        (Breaks(), InternalError, "after pass 'breaks' nn.add does not verify"),
    ],
)
def test_checks_name_the_pass_and_the_operation(pass_: Pass, error: type[PimcError], message: str) -> None:
    with pytest.raises(error, match=message) as info:
        PassManager((pass_,)).run(parse_module(MODULE))
    assert info.value.where in ("model.act", "model.sum", "<text>:2:1")


def test_checks_can_be_left_out() -> None:
    PassManager((LosesLocation(),), verify_each=False).run(parse_module(MODULE))


def test_observers(tmp_path: Path) -> None:
    stream, times = io.StringIO(), TimePasses()
    module = parse_module(MODULE)
    printer = PrintIr(stream, after_passes=["cse", "dce"])
    PassManager(parse_pipeline("cse,dce")).run(module, observers=[printer, times, DumpIr(tmp_path / "dump")])
    assert stream.getvalue().count("// ---- IR") == 2
    assert [name for name, _ in times.seconds] == ["cse", "dce"]
    assert times.table().endswith("total\n")
    files = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert files == ["00-input.mlir", "01-cse.mlir", "02-dce.mlir"]
    last = (tmp_path / "dump" / "02-dce.mlir").read_text()
    assert print_module(parse_module(last)) == last == print_module(module)


def test_print_after_all() -> None:
    stream = io.StringIO()
    PassManager(parse_pipeline("dce,cse")).run(parse_module(MODULE), observers=[PrintIr(stream, all_=True)])
    assert [line.split()[-1] for line in stream.getvalue().splitlines() if "----" in line] == ["dce", "cse"]


@dataclass(frozen=True)
class Plain(ModulePass):
    """A plain xDSL pass that names its target."""

    name = "plain"
    target: str = "hpim"
    set: tuple[str, ...] = ()

    @override
    def apply(self, ctx: Context, op: ModuleOp) -> None:
        op.attributes["test.target"] = StringAttr(f"{self.target}:{','.join(self.set)}")


def test_plain_passes_get_the_target_of_the_context() -> None:
    module = parse_module(MODULE)
    context = PassContext(target_name="other", overrides=("a.b=1",))
    PassManager((Plain(),)).run(module, context)
    assert module.attributes["test.target"] == StringAttr("other:a.b=1")
    PassManager((Plain(target="mine", set=("c=2",)),)).run(module, context)
    assert module.attributes["test.target"] == StringAttr("mine:c=2")


def test_a_pass_that_needs_a_target_says_so() -> None:
    with pytest.raises(UsageError, match="pass 'x' needs a target"):
        _ = PassContext(current_pass="x").target


def test_build_pass_reports_missing_options() -> None:
    @dataclass(frozen=True)
    class Needs(Pass):
        name = "needs"
        size: int

        @override
        def run(self, module: ModuleOp, context: PassContext) -> None:
            """Nothing."""

    with pytest.raises(UsageError, match="needs"):
        parse_pipeline("needs", OneRegistry(Needs))
    assert build_pass(Needs, Needs(size=2).spec()) == Needs(size=2)
