"""What ships: one top-level package, lean imports, root links, and nothing about the place it was made in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pimc

ROOT = Path(__file__).parents[2]


def test_the_installed_package_is_what_is_tested() -> None:
    """CI sets the variable: there, the tests must not import the source tree."""
    if os.environ.get("PIMC_TEST_INSTALLED"):
        assert not Path(pimc.__file__).is_relative_to(ROOT)


def test_only_pimc_is_installed_at_the_top() -> None:
    files = importlib.metadata.files("pimc") or []
    tops = {file.parts[0] for file in files if file.suffix == ".py" and len(file.parts) > 1}
    assert tops <= {"pimc"}
    for name in ("passes", "frontends", "backends", "isa", "runtime_sim"):
        found = subprocess.run([sys.executable, "-I", "-c", f"import {name}"], capture_output=True, check=False)
        assert found.returncode != 0, f"a package '{name}' is installed"


def test_package_data_ships() -> None:
    root = Path(pimc.__file__).parent
    assert (root / "py.typed").is_file()
    assert (root / "targets" / "hpim.toml").is_file()
    for path in (ROOT / "pimc").rglob("*"):
        if path.suffix in {".toml", ".lark"}:
            assert (root / path.relative_to(ROOT / "pimc")).is_file(), path


@pytest.mark.parametrize("name", ["passes", "frontends", "backends", "isa", "runtime_sim"])
def test_root_links(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path("pimc") / name


def test_importing_pimc_loads_nothing() -> None:
    code = "import sys, pimc; print(sorted(m for m in sys.modules if m.startswith('pimc.')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names() -> None:
    for name in pimc.__all__:
        assert getattr(pimc, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = pimc.nothing_like_this  # type: ignore[attr-defined]


def test_version_is_the_distribution_s() -> None:
    assert importlib.metadata.version("pimc") == pimc.__version__


def test_dependencies_are_pinned_and_lean() -> None:
    requirements = importlib.metadata.requires("pimc") or []
    for requirement in requirements:
        name = requirement.partition(";")[0].strip()
        assert "==" in name or name.startswith("pimc["), requirement
    always = " ".join(r for r in requirements if "extra ==" not in r)
    assert not re.search(r"torch|transformers|gguf|onnx", always)


def test_binaries_run_without_model_libraries() -> None:
    """What `pimc run` and `pimc generate` import never includes torch, transformers or the compiler's IR."""
    code = (
        "import sys\n"
        "import pimc.runtime, pimc.driver.api\n"
        "bad = ('torch', 'transformers', 'gguf', 'xdsl', 'pimc.ir', 'pimc.passes', 'pimc.frontends')\n"
        "print([name for name in bad if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
