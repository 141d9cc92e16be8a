"""``--policy``: built-in ones and those of plug-ins, in compile and opt, and what IR says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pimc.isa.container import load_program

MODULE = """
func.func @main(%x: tensor<1x64xf16>) -> tensor<1x32xf16> {
  %w = "nn.constant"() <{value = dense<0.5> : tensor<32x64xf16>}> : () -> tensor<32x64xf16>
  %t = "nn.transpose"(%w) <{permutation = array<i64: 1, 0>}> : (tensor<32x64xf16>) -> tensor<64x32xf16>
  %y = "nn.matmul"(%x, %t) : (tensor<1x64xf16>, tensor<64x32xf16>) -> tensor<1x32xf16>
  func.return %y : tensor<1x32xf16>
}
"""
PLUGIN = """
from pimc.passes.policy import Policy, first_choice

without = first_choice("systolic", policy="mine")
POLICY = Policy("mine", "products on the vector units", without, {"tile": {"share": 50}})
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A product of a constant, in a file."""
    path = tmp_path / "in.mlir"
    path.write_text(MODULE)
    return path


def test_help_and_lists_name_the_policies(pimc_cli: Callable) -> None:
    for command in ("compile", "opt"):
        text = " ".join(pimc_cli(command, "--help").out.split())
        assert "cost, no-bank-pim, no-sram-pim, paper, vector-only (default: paper)" in text.replace("- ", "-")
    lines = pimc_cli("opt", "--list-policies").out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["cost", "no-bank-pim", "no-sram-pim", "paper", "vector-only"]


def test_a_policy_decides(pimc_cli: Callable, module: Path) -> None:
    for policy, domain in (("paper", "tcu"), ("vector-only", "vcu")):
        found = pimc_cli("compile", module, "--explain", "matmul", "--policy", policy)
        assert found.code == 0, found.err
        assert f"gemv in {domain}" in found.out
    assert "policy vector-only gives no work to systolic" in found.out
    assert 'pim.domain = "vcu"' in pimc_cli("opt", module, "-p", "annotate,place", "--policy", "vector-only").out


def test_a_policy_of_a_plugin(pimc_cli: Callable, module: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    found = pimc_cli("compile", module, "--explain", "matmul", "--plugin", plugin, "--policy", "mine")
    assert "gemv in vcu" in found.out, found.err
    assert "mine: products on the vector units" in pimc_cli("opt", "--list-policies", "--plugin", plugin).out


def test_an_unknown_policy(pimc_cli: Callable, module: Path) -> None:
    found = pimc_cli("compile", module, "--explain", "matmul", "--policy", "vector")
    assert found.code == 2
    assert "no policy 'vector'" in found.err
    assert "did you mean vector-only?" in found.err


def test_placed_ir_goes_on_with_its_policy(pimc_cli: Callable, module: Path, tmp_path: Path) -> None:
    made = pimc_cli(
        "compile", module, "-o", tmp_path / "a.pimx", "--policy", "vector-only", "--dump-ir", tmp_path / "ir"
    )
    assert made.code == 0, made.err
    (placed,) = (tmp_path / "ir").glob("*-place.mlir")
    assert 'pim.policy = "vector-only"' in placed.read_text()
    assert pimc_cli("compile", placed, "-o", tmp_path / "b.pimx").code == 0
    first, again = (load_program(tmp_path / name).code for name in ("a.pimx", "b.pimx"))
    assert {name: words.tobytes() for name, words in first.items()} == {n: w.tobytes() for n, w in again.items()}
    other = pimc_cli("compile", placed, "-o", tmp_path / "c.pimx", "--policy", "paper")
    assert other.code == 2
    assert "placed already, by the policy 'vector-only'" in other.err
