"""The recipe for an ``nn`` operation in CONTRIBUTING.md: applied to a copy of the package, a model with it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES, LINES = 4, 60

#: Run with the copy: PyTorch's hardtanh, on whole tensors and on ones that are cut over the cores.
MODEL = """
import sys
from pathlib import Path

import numpy as np
import torch

import pimc
from pimc.driver.compile import Options, compile_model
from pimc.runtime import Executable

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = torch.nn.Linear(64, 512), torch.nn.Linear(512, 64)

    def forward(self, x):
        hidden = torch.nn.functional.hardtanh(self.up(torch.nn.functional.hardtanh(2 * x)), -0.25, 0.5)
        return self.down(hidden)

model, x, folder = Model().eval(), torch.randn(1, 24, 64), Path(sys.argv[1])
assert Path(pimc.__file__).is_relative_to(folder)
compiled = compile_model(model, (x,), options=Options(dump_ir=folder / "ir"))
(got,) = Executable(compiled.program, compiled.target).run({"x": x.numpy()}).outputs.values()
np.testing.assert_allclose(got, model(x).detach().numpy(), atol=1e-2)
"""


def hunks(text: str) -> dict[str, list[list[str]]]:
    """The lines of every hunk of the recipe's diffs, by file."""
    section = text.split("## Add an `nn` operation")[1].split("\n## ", maxsplit=1)[0]
    found: dict[str, list[list[str]]] = {}
    for block in re.findall(r"```diff\n(.*?)```", section, re.DOTALL):
        name, *rest = re.split(r"^@@\n", textwrap.dedent(block), flags=re.MULTILINE)
        path = name.removeprefix("--- a/").strip()
        found.setdefault(path, []).extend(hunk.splitlines() for hunk in rest)
    return found


def side(hunk: list[str], sign: str) -> str:
    """A hunk's lines before (``-``) or after (``+``) the edit."""
    return "".join(f"{line[1:]}\n" for line in hunk if not line or line[0] in (" ", sign))


def test_the_recipe_is_small() -> None:
    found = hunks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    added = [line for file in found.values() for hunk in file for line in hunk if line.startswith("+")]
    assert 0 < len(found) <= FILES
    assert 0 < len(added) <= LINES


def apply(file: Path, edits: list[list[str]]) -> None:
    """Make the edits of a file; each place must be there once."""
    text = file.read_text(encoding="utf-8")
    for hunk in edits:
        assert text.count(side(hunk, "-")) == 1, f"{file.name}: {side(hunk, '-')!r}"
        text = text.replace(side(hunk, "-"), side(hunk, "+"))
    file.write_text(text, encoding="utf-8")


def test_the_recipe_works(tmp_path: Path) -> None:
    for folder in ("pimc", "tests/random_graphs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, edits in hunks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")).items():
        apply(tmp_path / name, edits)
    command = [sys.executable, "-c", MODEL, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (partitioned,) = (tmp_path / "ir").glob("*-partition.mlir")
    operations = re.findall(r'"nn\.hard_tanh".*', partitioned.read_text(encoding="utf-8"))
    assert ["#pim." in line for line in operations] == [False, True]
