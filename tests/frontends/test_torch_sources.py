"""Where PyTorch programs come from: ``.pt2`` files, and code that returns a module and example inputs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_programs import interpreted

from pimc.diagnostics import InputError, UsageError
from pimc.frontends import import_model
from pimc.frontends.user_code import names_code


class Tiny(torch.nn.Module):
    """A layer, a buffer and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("steps", torch.arange(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.steps + torch.tensor([0.5, 1.5, 2.5])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy file."""
    path = tmp_path_factory.mktemp("pt2") / "tiny.pt2"
    torch.export.save(torch.export.export(Tiny().eval(), (torch.ones(2, 4),)), path)
    return path


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of an archive with other contents (None: left out)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_a_file_gives_what_the_module_gives(archive: Path) -> None:
    model = import_model(archive, max_seq=8)
    assert model.name == "tiny"
    x = torch.randn(2, 4)
    (found,) = interpreted(model, [x]).values()
    program = torch.export.load(archive).module()
    np.testing.assert_allclose(found, program(x).detach().numpy(), atol=1e-5)


def test_a_decomposed_file(tmp_path: Path) -> None:
    """Files that were saved after PyTorch's default decompositions."""
    layer = torch.nn.TransformerEncoderLayer(16, 2, 24, batch_first=True).eval()
    x = torch.randn(1, 5, 16)
    with torch.no_grad():
        program = torch.export.export(layer, (x,)).run_decompositions()
        torch.export.save(program, tmp_path / "layer.pt2")
        wanted = layer(x).numpy()
    (found,) = interpreted(import_model(tmp_path / "layer.pt2", max_seq=8), [x]).values()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


class Payload:
    """What a hostile pickle does when it is read: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def hostile_config(name: str) -> Callable[[str, bytes], bytes | None]:
    def change(member: str, content: bytes) -> bytes | None:
        if not member.endswith("_constants_config.json"):
            return content
        config = json.loads(content)
        config["config"]["x"] = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        return json.dumps(config).encode()

    return change


def symbolic(member: str, content: bytes) -> bytes | None:
    graph = json.loads(content) if member.endswith("models/model.json") else None
    if graph is None:
        return content
    graph["range_constraints"]["s0"] = {"min_val": 2, "max_val": 9}
    graph["graph_module"]["graph"]["sym_int_values"]["s0"] = {
        "as_expr": {"expr_str": "__import__('os').mkdir('x')", "hint": {"as_int": 1}}
    }
    return json.dumps(graph).encode()


DAMAGE: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "no graph": (lambda name, content: None if "models/" in name else content, "holds 0 exported programs"),
    "a graph that is no JSON": (lambda name, content: b"{" if "models/" in name else content, r"is no \.pt2 archive"),
    "a graph of something else": (
        lambda name, content: b"{}" if "models/" in name else content,
        "is no exported program",
    ),
    "no weights": (lambda name, content: None if "data/weights" in name else content, "is no exported program"),
    "a pickled object": (hostile_config("opaque_obj_0"), "pickled objects"),
    "symbolic sizes": (symbolic, "sizes that are not fixed"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_archives(kind: str, archive: Path, tmp_path: Path) -> None:
    change, message = DAMAGE[kind]
    path = rewritten(archive, tmp_path / "damaged.pt2", change)
    with pytest.raises(InputError, match=message) as caught:
        import_model(path, max_seq=8)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_files_that_are_no_archives(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], pickle.dumps({"a": 1})):
        path = tmp_path / "bad.pt2"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is no \.pt2 archive"):
            import_model(path, max_seq=8)


def test_compiled_code_is_not_loaded(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "library.pt2"
    shutil.copy(archive, path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("tiny/data/aotinductor/model/model.so", b"\x7fELF")
    with pytest.raises(InputError, match="compiled code"):
        import_model(path, max_seq=8)


@pytest.mark.parametrize("member", ["sample_inputs/model.pt", "weights/weight_0"])
def test_pickles_in_an_archive_do_not_run(member: str, archive: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"

    def change(name: str, content: bytes) -> bytes | None:
        if name.endswith(member):
            return pickle.dumps(Payload(mark))
        if name.endswith("_weights_config.json") and member.startswith("weights"):
            config = json.loads(content)
            for entry in config["config"].values():
                entry["use_pickle"] = True
            return json.dumps(config).encode()
        return content

    path = rewritten(archive, tmp_path / "hostile.pt2", change)
    with pytest.raises(InputError):
        import_model(path, max_seq=8)
    assert not mark.exists()


CODE = """
import torch
from beside import WIDTH

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, 2)

    def forward(self, x, scale=None):
        y = self.layer(x)
        return y if scale is None else y * scale

def pair():
    return Net(), (torch.ones(1, WIDTH),)

def triple():
    return Net(), (torch.ones(1, WIDTH),), {"scale": torch.ones(2)}

def named():
    return Net(), {"x": torch.ones(1, WIDTH)}

def bare():
    return Net()

def wrong():
    return Net(), 5

def failing():
    return [][3]

def leaving():
    raise SystemExit(0)

number = 3
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    path = tmp_path / "net.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize("name", ["pair", "triple", "named"])
def test_code_in_a_file(name: str, code: Path) -> None:
    model = import_model(f"{code}:{name}", max_seq=8)
    assert (model.name, model.weights.shape("layer.weight")) == ("Net", (2, 4))


def test_code_in_a_module(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(code.parent)
    assert import_model("net:pair", max_seq=8).name == "Net"


WRONG_CODE = {
    "net.py:bare": "the function returned a Net",
    "net.py:wrong": "the example inputs are no tuple",
    "net.py:failing": r"the code raised IndexError: list index out of range \(net\.py:30\)",
    "net.py:leaving": "the code raised SystemExit",
    "net.py:number": "has no function 'number'",
    "net.py:other": "has no function 'other'",
    "broken.py:f": "the code raised SyntaxError",
    "absent.py:f": "there is no such file",
    "no_such_package.module:f": "there is no Python module 'no_such_package'",
    "absent.bin": "there is no such file or folder",
}


@pytest.mark.parametrize("text", WRONG_CODE)
def test_wrong_code(text: str, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code.parent / "broken.py").write_text("def f(:\n")
    monkeypatch.chdir(code.parent)
    with pytest.raises(InputError, match=WRONG_CODE[text]):
        import_model(text, max_seq=8)


def test_what_names_code() -> None:
    assert names_code("a.b:c")
    assert names_code("dir/file.py:main")
    assert not any(map(names_code, ("model.onnx", "a.b:", "C:\\model.pt2", "dir/file:main", "a:b c")))


def test_arguments_that_a_source_does_not_take(archive: Path, code: Path) -> None:
    with pytest.raises(UsageError, match="takes no example inputs"):
        import_model(archive, max_seq=8, example_inputs=(torch.ones(1),))
    with pytest.raises(UsageError, match="takes no shapes"):
        import_model(f"{code}:pair", max_seq=8, shapes={"x": (1,)})
