"""Passes of users: the example, the entry-point group, and edits of the pipeline."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled import SIZES, Compilation

import pimc
from pimc.diagnostics import UsageError
from pimc.driver.compile import Options, plan
from pimc.driver.pipeline import DEFAULT
from pimc.isa.container import load_program
from pimc.isa.program import Program
from pimc.passes.base import format_pass
from pimc.passes.registry import PassRegistry

#: Passes up to place.
PLACED = DEFAULT.index("place") + 1

EXAMPLE = Path(__file__).parents[2] / "examples/custom_pass/lm_head_on_cores.py"
EDIT = "...,place,lm-head-on-cores,..."


@pytest.fixture(scope="module")
def moved(compilation: Compilation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model compiled with the example."""
    from pimc.cli.main import main

    out = tmp_path_factory.mktemp("moved") / "m.pimx"
    words = ["compile", str(compilation.folder), "-o", str(out), *SIZES, "--plugin", str(EXAMPLE), "-p", EDIT]
    assert main(words) == 0
    return out


def head_words(program: Program, entry: str, kind: str) -> int:
    """Words of the LM head in one core's program, or one group's stream."""
    streams = program.entries[entry].cores if kind == "core" else program.entries[entry].groups
    locations = program.locations[streams[0]]
    return sum(index >= 0 and locations.table[index] == "lm_head" for index in locations.index)


def test_the_example_moves_the_head_from_the_banks(compilation: Compilation, moved: Path) -> None:
    before, after = load_program(compilation.binary), load_program(moved)
    for entry in ("prefill", "decode"):
        assert head_words(before, entry, "group") > 0
        assert head_words(after, entry, "group") == 0
        assert head_words(after, entry, "core") > head_words(before, entry, "core")


def test_the_example_computes_the_same(compilation: Compilation, moved: Path) -> None:
    default, cores = pimc.load(compilation.binary), pimc.load(moved)
    tokens = np.random.default_rng(0).integers(3, 190, 8).astype(np.int32)
    one = lambda value: np.array([value], np.int32)  # noqa: E731
    runs = [
        ("prefill", {"tokens": tokens[None, :4], "position": one(0), "length": one(4)}),
        *(("decode", {"tokens": tokens[None, p : p + 1], "position": one(p)}) for p in range(4, 8)),
    ]
    for entry, inputs in runs:
        expected, found = default.run(inputs, entry=entry), cores.run(inputs, entry=entry)
        difference = np.abs(found.outputs["logits"].astype(np.float32) - expected.outputs["logits"].astype(np.float32))
        assert difference.max() < 0.01  # the head sums in another order, everything before it is the same
        assert found.cycles != expected.cycles


def test_explain_shows_what_the_example_decided(pimc_cli: Callable, compilation: Compilation) -> None:
    words = ("compile", compilation.folder, *SIZES, "--explain", "lm_head", "--plugin", EXAMPLE, "-p", EDIT)
    lines = pimc_cli(*words).out.splitlines()
    assert len(lines) == 2  # prefill and decode
    assert all("in tcu: lm-head-on-cores: " in line for line in lines)


def test_an_unknown_domain_leaves_nothing(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    edit = "...,place,lm-head-on-cores{domain=nowhere},..."
    words = ("compile", compilation.folder, "-o", tmp_path / "m.pimx", *SIZES, "--plugin", EXAMPLE, "-p", edit)
    result = pimc_cli(*words)
    assert result.code == 1
    assert "nowhere" in result.error_lines[0]
    assert list(tmp_path.iterdir()) == []


# -- entry points ------------------------------------------------------------------------------------------------------

INSTALLED = '''
from dataclasses import dataclass
from xdsl.dialects.builtin import StringAttr
from pimc.passes.base import Pass

@dataclass(frozen=True)
class Sign(Pass):
    """Write a name on the module."""
    name = "sign"
    by: str = "nobody"
    def run(self, module, context):
        module.attributes["signed"] = StringAttr(self.by)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with an entry point in the group ``pimc.passes``."""
    (tmp_path / "signing_passes.py").write_text(INSTALLED)
    info = tmp_path / "signing_passes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: signing-passes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pimc.passes]\nsign = signing_passes:Sign\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("installed")
def test_installed_passes_are_found_by_name(pimc_cli: Callable, compilation: Compilation) -> None:
    placed = compilation.dumps[compilation.names.index("place")]
    result = pimc_cli("opt", placed, "-p", "sign{by=me}")
    assert result.code == 0, result.err
    assert 'signed = "me"' in result.out
    listed = pimc_cli("opt", "--list-passes").out
    assert "sign: Write a name on the module.\n    by: str = nobody" in listed
    steps = plan(Options(pipeline="...,place,sign{by=me},...")).passes
    assert [step.name for step in steps] == [*DEFAULT[:PLACED], "sign", *DEFAULT[PLACED:]]


def test_without_the_distribution_the_pass_is_unknown() -> None:
    with pytest.raises(UsageError, match="no pass 'sign'"):
        PassRegistry().get("sign")


# -- edits of the pipeline ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("...,lm-head-on-cores,partition,...", [*DEFAULT[:PLACED], "lm-head-on-cores", *DEFAULT[PLACED:]]),
        (EDIT, [*DEFAULT[:PLACED], "lm-head-on-cores", *DEFAULT[PLACED:]]),
        ("...,tile,lower,...", [step for step in DEFAULT if step != "schedule"]),
        ("...,tile{buffers=2},...", [f"{step}{{buffers=2}}" if step == "tile" else step for step in DEFAULT]),
    ],
    ids=["before", "after", "drop", "option"],
)
def test_edits(edit: str, expected: list[str]) -> None:
    steps = plan(Options(pipeline=edit, plugins=(str(EXAMPLE),))).passes
    assert [format_pass(step) for step in steps] == expected


def test_an_option_makes_another_program_with_the_same_meaning(
    pimc_cli: Callable, compilation: Compilation, tmp_path: Path
) -> None:
    out = tmp_path / "m.pimx"
    edit = "...,outline,annotate,...,layout{ksplit=1},..."
    assert pimc_cli("compile", compilation.folder, "-o", out, *SIZES, "-p", edit).code == 0
    inputs = {"tokens": np.array([[7]], np.int32), "position": np.array([0], np.int32)}
    default, edited = (pimc.load(path).run(inputs, entry="decode") for path in (compilation.binary, out))
    assert edited.cycles != default.cycles
    difference = np.abs(edited.outputs["logits"].astype(np.float32) - default.outputs["logits"].astype(np.float32))
    assert difference.max() < 0.01  # sums in another order
