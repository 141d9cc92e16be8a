"""README and CONTRIBUTING tell the truth: the commands they name exist, the recipes work, the paths are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from pimc import limits
from pimc.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
MODULE = """
func.func @f(%x: tensor<1x1x64xf16>) -> tensor<1x1x32xf16> {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<32x64xf16>
  %y = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<32x64xf16>) -> tensor<1x1x32xf16>
  func.return %y : tensor<1x1x32xf16>
}
"""


def commands() -> list[str]:
    """Every indented ``pimc ...`` line of README and CONTRIBUTING."""
    text = "".join((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
    return [line.strip() for line in re.findall(r"^    pimc .*$", text, re.MULTILINE)]


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str) -> None:
    top, _ = build_parser()
    top.parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:pimc|tests|docs|examples)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_pass_recipe_works(pimc_cli: Callable, tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (source,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "CountWeights" in block]
    plugin, module = tmp_path / "count_weights.py", tmp_path / "in.mlir"
    plugin.write_text(source)
    module.write_text(MODULE)
    result = pimc_cli("opt", module, "--plugin", plugin, "-p", 'count-weights{attribute="n"}', "--verify-each")
    assert result.code == 0, result.err
    assert "n = 1 : i64" in result.out


def test_the_target_recipe_works(pimc_cli: Callable, tmp_path: Path) -> None:
    text = (ROOT / "pimc/targets/hpim.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace('name = "hpim"', 'name = "mine"', 1))
    result = pimc_cli("targets", mine)
    assert result.code == 0, result.err
    assert "name = mine" in result.out


def test_the_limits_are_those_of_the_code() -> None:
    text = (ROOT / "docs/security.md").read_text()
    written = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert written == [(name, limit.text, limit.what) for name, limit in limits.table().items()]
