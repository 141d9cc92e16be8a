"""The IR of every pass: read again, read by iree-opt, and continued from any place."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from compiled import Compilation

from pimc.driver.pipeline import DEFAULT
from pimc.ir.context import parse_module, print_module

#: Passes whose result is in the dialects of tensors; later ones are in those of instructions.
TENSOR_LEVEL = (
    "input",
    "canonicalize",
    "raise",
    "outline",
    "annotate",
    "place",
    "partition",
    "layout",
    "tile",
    "schedule",
)


def test_one_numbered_file_a_pass(compilation: Compilation) -> None:
    assert compilation.names == ["input", *DEFAULT]
    assert [path.stem.partition("-")[0] for path in compilation.dumps] == [f"{i:02}" for i in range(len(DEFAULT) + 1)]


def test_every_dump_parses_to_the_same_ir(compilation: Compilation) -> None:
    for path in compilation.dumps:
        text = path.read_text()
        assert print_module(parse_module(text)) == text, path.name


def test_iree_opt_accepts_the_dumps(compilation: Compilation, iree_opt: str) -> None:
    for name, path in zip(compilation.names, compilation.dumps, strict=True):
        done = subprocess.run(
            [iree_opt, "--allow-unregistered-dialect", str(path), "-o", "-"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{path.name}: {done.stderr[:500]}"
        dialects = [dialect for dialect in ("nn.", "pim.") if f'"{dialect}' in done.stdout]
        if name in TENSOR_LEVEL:
            assert dialects, path.name


@pytest.mark.parametrize("index", range(len(DEFAULT)), ids=[f"from-{name}" for name in ("input", *DEFAULT[:-1])])
def test_the_pipeline_continues_from_every_dump(pimc_cli: Callable, compilation: Compilation, index: int) -> None:
    result = pimc_cli("opt", compilation.dumps[index], "-p", ",".join(DEFAULT[index:]), "--verify-each")
    assert result.code == 0, result.err
    assert result.out == compilation.dumps[-1].read_text()


def test_print_ir_after(pimc_cli: Callable, compilation: Compilation) -> None:
    dump = dict(zip(compilation.names, compilation.dumps, strict=True))
    passes = ("tile", "schedule", "lower")
    words = ("opt", dump["layout"], "-p", ",".join(passes))
    every = pimc_cli(*words, "--print-ir-after-all")
    assert every.err == "".join(f"// ---- IR after {name}\n{dump[name].read_text()}" for name in passes)
    one = pimc_cli(*words, "--print-ir-after", "schedule")
    assert one.err == f"// ---- IR after schedule\n{dump['schedule'].read_text()}"
    assert one.out == every.out == dump["lower"].read_text()


def test_time_passes(compilation: Compilation) -> None:
    rows = [line.split() for line in compilation.messages.splitlines() if " ms " in line]
    assert [row[-1] for row in rows] == [*DEFAULT, "total"]
    assert all(float(row[0]) >= 0 for row in rows)


BREAK = '''
from dataclasses import dataclass
from pimc.ir import nn
from pimc.passes.base import Pass

@dataclass(frozen=True)
class Break(Pass):
    """Leave an operation whose attribute is not what its definition says."""
    name = "break-it"
    def run(self, module, context):
        for op in module.walk():
            if isinstance(op, nn.RmsNormOp):
                del op.properties["eps"]

@dataclass(frozen=True)
class Mend(Pass):
    """Undo that."""
    name = "mend-it"
    def run(self, module, context):
        good = next(op for op in module.walk() if isinstance(op, nn.AddOp))
        for op in module.walk():
            if isinstance(op, nn.RmsNormOp):
                op.properties["eps"] = nn.RmsNormOp(op.x, op.weight, 1e-5).properties["eps"]
'''


def test_verify_each_names_the_pass(pimc_cli: Callable, compilation: Compilation, tmp_path) -> None:  # noqa: ANN001
    plugin = tmp_path / "breaking.py"
    plugin.write_text(BREAK)
    raised = compilation.dumps[compilation.names.index("raise")]
    words = ("opt", raised, "--plugin", plugin, "-p", "break-it,mend-it")
    checked = pimc_cli(*words, "--verify-each")
    assert checked.code == 3
    assert "after pass 'break-it'" in checked.error_lines[0]
    assert checked.out == ""
    assert pimc_cli(*words).code == 0
