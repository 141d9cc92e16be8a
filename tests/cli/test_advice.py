"""What help, documentation and hints advise can be followed."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from pimc.cli.parser import build_parser
from pimc.diagnostics import TargetError
from pimc.requirements import import_hint, import_requirements
from pimc.targets import load_target

ROOT = Path(__file__).parents[2]
KEY = re.compile(r"""(?:--set |["'])([a-z_]+(?:\.[A-Za-z_0-9]+)+)["']?(?:=|: )([0-9]+)""")


def advised_overrides() -> list[str]:
    """Every override with a number that the help of a command, the documentation, a docstring or a hint shows."""
    helps = [re.sub(r"\s+", " ", parser.format_help()) for parser in build_parser()[1].values()]
    pages = [path.read_text() for path in (*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md")]
    sources = [path.read_text() for path in (ROOT / "pimc").rglob("*.py")]
    shown = {key for text in helps for key in re.findall(r"such as ([a-z_]+\.[A-Za-z_.]+=[0-9]+)", text)}
    found = shown | {f"{key}={value}" for text in (*pages, *sources) for key, value in KEY.findall(text)}
    return sorted(key for key in found if not key.startswith("aten."))


def test_advised_overrides_are_found() -> None:
    assert {"hbm.timing.nFAW=20", "cores.count=16"} <= set(advised_overrides())


@pytest.mark.parametrize("override", advised_overrides())
def test_advised_overrides_are_taken(override: str) -> None:
    """The key exists (a figure may still contradict another)."""
    problem = ""
    try:
        load_target("hpim", [override])
    except TargetError as error:
        problem = str(error)
    assert not re.search("unknown key|no element|key of no table", problem)


def test_every_listed_key_is_one_that_set_takes(pimc_cli: Callable) -> None:
    """`pimc targets NAME` lists the keys: each leads to a value in the file."""
    table: object = tomllib.loads((files("pimc.targets") / "hpim.toml").read_text(encoding="utf-8"))
    for line in pimc_cli("targets", "hpim").out.splitlines():
        node, key = table, line.partition(" = ")[0]
        for part in key.split(".") if key != "digest" else ():
            items = node if isinstance(node, dict) else {item["name"]: item for item in node}
            assert part in items, key
            node = items[part]


def test_the_advice_to_install_names_packages_by_version() -> None:
    """Never pimc itself: it may be on no index, where a stranger could take the name."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["import"]
    assert import_requirements() in (tuple(wanted), ())
    assert "pimc[" not in import_hint()
    assert not [path for path in (ROOT / "pimc").rglob("*.py") if "'pimc[" in path.read_text()]


@pytest.mark.parametrize("kind", ["bart", "mamba", "x" * 5000])
def test_an_unknown_type_of_model_lists_all_that_works(pimc_cli: Callable, tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    result = pimc_cli("compile", tmp_path, "-o", tmp_path / "m.pimx")
    assert result.code == 1
    assert f"model type '{kind[:80]}' is not supported" in result.error_lines[0]
    for word in ("llama", "bert", "vit", "pimc.compile(model.get_encoder(), example_inputs)", "ONNX"):
        assert word in result.error_lines[1]
    assert len(result.err) < 1000
