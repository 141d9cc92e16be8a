"""``pimc opt``: passes on dumps, plugins, and what can be watched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MODULE = """
func.func @f(%x: tensor<1x1x64xf16>) -> tensor<1x1x32xf16> {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<32x64xf16>
  %y = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<32x64xf16>) -> tensor<1x1x32xf16>
  func.return %y : tensor<1x1x32xf16>
}
"""
PLUGIN = '''
from dataclasses import dataclass
from pimc.passes.base import Pass

@dataclass(frozen=True)
class Shout(Pass):
    """Shout."""
    name = "{name}"
    def run(self, module, context):
        {body}
'''


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A small module in a file."""
    path = tmp_path / "in.mlir"
    path.write_text(MODULE)
    return path


def test_no_passes_prints_the_module(pimc_cli: Callable, module: Path, tmp_path: Path) -> None:
    once = pimc_cli("opt", module)
    again = tmp_path / "again.mlir"
    again.write_text(once.out)
    assert once.code == 0
    assert pimc_cli("opt", again).out == once.out


def test_passes_run_in_order(pimc_cli: Callable, module: Path) -> None:
    result = pimc_cli("opt", module, "-p", "annotate,place", "--policy", "paper", "--time-passes", "--verify-each")
    assert result.code == 0, result.err
    assert 'pim.domain = "hbm"' in result.out
    assert [line.split()[-1] for line in result.error_lines] == ["annotate", "place", "total"]


def test_print_ir_after(pimc_cli: Callable, module: Path) -> None:
    one = pimc_cli("opt", module, "-p", "annotate,place", "--print-ir-after", "annotate").err
    both = pimc_cli("opt", module, "-p", "annotate,place", "--print-ir-after-all").err
    assert (one.count("// ---- IR after"), both.count("// ---- IR after")) == (1, 2)
    assert "pim.class" in one
    assert "pim.domain" not in one


def test_output_to_a_file(pimc_cli: Callable, module: Path, tmp_path: Path) -> None:
    result = pimc_cli("opt", module, "-p", "annotate", "-o", tmp_path / "out.mlir")
    assert (result.code, result.out) == (0, "")
    assert "pim.class" in (tmp_path / "out.mlir").read_text()


def test_list_passes(pimc_cli: Callable) -> None:
    from pimc.driver.pipeline import DEFAULT

    listed = pimc_cli("opt", "--list-passes").out
    names = {line.partition(":")[0] for line in listed.splitlines()}
    assert set(DEFAULT) <= names


def plugin(folder: Path, name: str, body: str) -> Path:
    """A plugin file with one pass."""
    path = folder / "shout.py"
    path.write_text(PLUGIN.format(name=name, body=body))
    return path


def test_plugin(pimc_cli: Callable, module: Path, tmp_path: Path) -> None:
    path = plugin(tmp_path, "shout", "print('HERE')")
    result = pimc_cli("opt", module, "--plugin", path, "-p", "shout")
    assert result.code == 0, result.err
    assert result.out.startswith("HERE\n")


@pytest.mark.parametrize(
    ("name", "body", "code", "message"),
    [
        ("place", "pass", 2, "already a pass 'place'"),
        ("shout", "return (", 2, "cannot load the plugin: SyntaxError"),
        ("shout", "{}['missing']", 3, "missing"),
    ],
)
def test_plugins_that_fail(
    pimc_cli: Callable, module: Path, tmp_path: Path, name: str, body: str, code: int, message: str
) -> None:
    path = plugin(tmp_path, name, body)
    result = pimc_cli("opt", module, "--plugin", path, "-p", "shout", "-o", tmp_path / "out.mlir")
    assert result.code == code, result.err
    assert message in result.error_lines[0]
    assert len(result.error_lines) <= 2
    assert not (tmp_path / "out.mlir").exists()
