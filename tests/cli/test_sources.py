"""``pimc compile`` on sources other than language models: Python code, ``.pt2`` files, options of ONNX models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pimc.diagnostics import InputError, UsageError
from pimc.driver.inputs import shapes_of, values_of

CODE = """
import torch

class Odd(torch.nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).abs() + torch.rand(4)

def mlp():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    return model.eval(), (torch.ones(1, 4),)

def odd():
    return Odd(), (torch.ones(1, 4),)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(CODE)
    return path


def test_code_and_its_saved_program_give_the_same(pimc_cli: Callable, code: Path, tmp_path: Path) -> None:
    namespace: dict[str, Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]] = {}
    exec(CODE, namespace)  # type: ignore[arg-type]
    model, inputs = namespace["mlp"]()
    torch.export.save(torch.export.export(model, inputs), tmp_path / "net.pt2")
    x = np.random.default_rng(1).standard_normal((1, 4)).astype(np.float32)
    np.savez(tmp_path / "in.npz", input=x)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    for source in (f"{code}:mlp", tmp_path / "net.pt2"):
        assert pimc_cli("compile", source, "-o", tmp_path / "net.pimx").code == 0
        words = ("--inputs", tmp_path / "in.npz", "--outputs", tmp_path / "out.npz", "--json")
        result = pimc_cli("run", tmp_path / "net.pimx", *words)
        assert json.loads(result.out)["outputs"] == {"output": {"shape": [1, 2], "dtype": "float32"}}
        np.testing.assert_allclose(np.load(tmp_path / "out.npz")["output"], wanted, atol=4e-3)


def test_unsupported_things_have_a_line_each(pimc_cli: Callable, code: Path, tmp_path: Path) -> None:
    result = pimc_cli("compile", f"{code}:odd", "-o", tmp_path / "odd.pimx")
    assert result.code == 1
    assert result.error_lines[0].startswith("pimc: error: @main: 2 unsupported node(s)")
    assert [line.split()[0] for line in result.error_lines[1:]] == ["aten.fft_fft.default", "aten.rand.default"]
    assert all("net.py:6" in line for line in result.error_lines[1:])
    assert not (tmp_path / "odd.pimx").exists()


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        ("net.py:other", (), "has no function 'other'"),
        ("gone.py:mlp", (), "no such file"),
        ("net.py:mlp", ("--shape", "input=1,2"), "takes no shapes"),
        ("net.py:mlp", ("--shape", "input=1,n"), "is no shape"),
        ("net.py:mlp", ("--bind", "input=x"), "no list of numbers"),
    ],
)
def test_wrong_sources(
    pimc_cli: Callable, code: Path, tmp_path: Path, source: str, words: tuple[str, ...], message: str
) -> None:
    result = pimc_cli("compile", code.parent / source, "-o", tmp_path / "out.pimx", *words)
    assert result.code in (1, 2)
    assert message in result.error_lines[0]
    assert len(result.error_lines) <= 2


def test_values_of_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.arange(3, dtype=np.uint8))
    found = values_of(["a=5", "b=2,3", "c=[[1.5, 2],[3,4]]", "d=true,false", f"e={tmp_path / 'v.npy'}", "f=[7]"])
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == {
        "a": ((), "int64"),
        "b": ((2,), "int64"),
        "c": ((2, 2), "float32"),
        "d": ((2,), "bool"),
        "e": ((3,), "uint8"),
        "f": ((1,), "int64"),
    }
    assert shapes_of(["a=1,128", "b=3", "c="]) == {"a": (1, 128), "b": (3,), "c": ()}


@pytest.mark.parametrize("text", ["a=", "a=x", "a=[1,[2]]", 'a="x"', "a={}", "a=null"])
def test_values_that_are_no_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="is no list of numbers"):
        values_of([text])


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"is no \.npy file"):
        values_of([f"a={tmp_path / 'bad.npy'}"])
    with pytest.raises(InputError, match="cannot be read"):
        values_of([f"a={tmp_path / 'gone.npy'}"])
    with pytest.raises(UsageError, match="names 'a' twice"):
        values_of(["a=1", "a=2"])
