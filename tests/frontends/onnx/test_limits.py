"""Small files that ask for much: refused before the memory is, with one error."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pimc.diagnostics import InputError
from pimc.frontends.onnx import import_onnx, limits
from pimc.frontends.onnx.limits import MAX_COMPUTED, Budget
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir.interpreter import Interpreter

HUGE = 1 << 36
GIB = 1 << 30


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """At most 4 GiB of addresses more than now, so that an allocation of what the model asks for fails the test."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * GIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def ints(name: str, *numbers: int) -> TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def scalar(name: str, number: int) -> TensorProto:
    return numpy_helper.from_array(np.array(number, np.int64), name)


def floats(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def model(
    nodes: list[onnx.NodeProto], *tensors: TensorProto, output: int = TensorProto.FLOAT, **options: object
) -> onnx.ModelProto:
    """A model of an input ``x`` of two floats."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])]
    outputs = [helper.make_tensor_value_info("y", output, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10, **options)


def refused(source: onnx.ModelProto | Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        import_onnx(source)


node = helper.make_node

GROWING = {
    "Range": ([node("Range", ["zero", "huge", "one"], ["y"])], TensorProto.INT64),
    "ConstantOfShape": ([node("ConstantOfShape", ["shape"], ["y"])], TensorProto.FLOAT),
    "Expand": ([node("Expand", ["w", "shape"], ["y"])], TensorProto.FLOAT),
    "Tile": ([node("Tile", ["w", "shape"], ["y"])], TensorProto.FLOAT),
    "Pad": ([node("Pad", ["w", "pads"], ["y"])], TensorProto.FLOAT),
    "OneHot": ([node("OneHot", ["shape", "huge", "ends"], ["y"])], TensorProto.FLOAT),
    "Resize": ([node("Resize", ["image", "", "", "sizes"], ["y"])], TensorProto.FLOAT),
    "Expand of an input": ([node("Expand", ["x", "shape2"], ["y"])], TensorProto.FLOAT),
    "Pad of an input": ([node("Pad", ["x", "pads"], ["y"])], TensorProto.FLOAT),
    "EyeLike": ([node("Expand", ["x", "tall"], ["z"]), node("EyeLike", ["z"], ["y"])], TensorProto.FLOAT),
    "Trilu": ([node("Expand", ["x", "tall"], ["z"]), node("Trilu", ["z"], ["y"])], TensorProto.FLOAT),
    "HannWindow": ([node("HannWindow", ["huge"], ["y"])], TensorProto.FLOAT),
    "DFT": ([node("Expand", ["x", "signal"], ["z"]), node("DFT", ["z", "", "one"], ["y"])], TensorProto.FLOAT),
    "an outer product": (
        [node("Expand", ["w", "column"], ["a"]), node("MatMul", ["a", "row"], ["y"])], TensorProto.FLOAT
    ),
    "Pad of a shape": (
        [node("Shape", ["x"], ["s"]), node("Pad", ["s", "pads"], ["p"]), node("ReduceSum", ["p"], ["y"])],
        TensorProto.INT64,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GROWING)
def test_computed_sizes(name: str) -> None:
    nodes, output = GROWING[name]
    tensors = [
        scalar("zero", 0), scalar("one", 1), scalar("huge", HUGE), ints("shape", HUGE), ints("shape2", HUGE, 2),
        ints("pads", 0, HUGE), floats("w", 1), numpy_helper.from_array(np.array([0, 1], np.float32), "ends"),
        floats("image", 1, 1, 2, 2), ints("sizes", 1, 1, 2, HUGE), ints("tall", 1 << 28, 2),
        ints("signal", 1, 1 << 17, 2), ints("column", 1 << 14, 1), floats("row", 1, 1 << 14),
    ]  # fmt: skip
    used = {name for item in nodes for name in item.input}
    refused(model(nodes, *(tensor for tensor in tensors if tensor.name in used), output=output), "elements")


def test_a_chain_of_large_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COMPUTED", 1 << 16)
    nodes = [node("Expand", ["w", "shape"], ["a0"])]
    nodes += [node("Neg", [f"a{index}"], [f"a{index + 1}"]) for index in range(40)]
    shape = ints("shape", 1 << 14)
    refused(model([*nodes, node("ReduceSum", ["a40"], ["y"])], floats("w", 1), shape), "computed at import")


def test_loops_in_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_NODES", 5000)

    def loop(depth: int) -> onnx.NodeProto:
        body = [node("Identity", ["c"], ["d"]), loop(depth - 1) if depth else node("Neg", ["v"], ["y"])]
        ports = [helper.make_tensor_value_info(*item) for item in (("i", 7, []), ("c", 9, []), ("v", 1, [2]))]
        ends = [helper.make_tensor_value_info(*item) for item in (("d", 9, []), ("y", 1, [2]))]
        graph = helper.make_graph(body, "body", ports, ends)
        return node("Loop", ["steps", "", "v" if depth < 2 else "x"], ["y"], body=graph)

    refused(model([loop(2)], scalar("steps", 4096)), "at most 5000 nodes")


@pytest.mark.parametrize("depth", [60, 200])
def test_functions_that_grow(depth: int) -> None:
    functions = [
        helper.make_function(
            "f", f"F{level}", ["x"], ["y"],
            [node(f"F{level + 1}", ["x"], ["z"], domain="f"), node(f"F{level + 1}", ["z"], ["y"], domain="f")],
            [helper.make_opsetid("f", 1)],
        )
        for level in range(depth)
    ]  # fmt: skip
    functions.append(
        helper.make_function("f", f"F{depth}", ["x"], ["y"], [node("Neg", ["x"], ["y"])], [helper.make_opsetid("", 21)])
    )
    grown = model([node("F0", ["x"], ["y"], domain="f")], functions=functions)
    grown.opset_import.append(helper.make_opsetid("f", 1))
    refused(grown, "functions")


def test_a_function_that_calls_itself() -> None:
    function = helper.make_function("f", "F", ["x"], ["y"], [node("F", ["x"], ["y"], domain="f")], [])
    function.opset_import.append(helper.make_opsetid("f", 1))
    endless = model([node("F", ["x"], ["y"], domain="f")], functions=[function])
    endless.opset_import.append(helper.make_opsetid("f", 1))
    refused(endless, "without end|cycl|recurs")


def inner(location: str, length: int = 8) -> onnx.NodeProto:
    """A ``Constant`` whose values are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return node("Constant", [], ["w"], value=tensor)


def test_external_data_inside_a_node(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    add = node("Add", ["x", "w"], ["y"])
    (tmp_path / "outside.bin").write_bytes(bytes(8))
    (folder / "w.bin").write_bytes(np.array([3, 4], np.float32).tobytes())
    for location, match in (("../outside.bin", "outside"), ("none.bin", "is missing"), ("/etc/hosts", "outside")):
        path.write_bytes(model([inner(location), add]).SerializeToString())
        refused(path, match)
    path.write_bytes(model([inner("w.bin", 4), add]).SerializeToString())
    refused(path, "do not fill")
    path.write_bytes(model([inner("w.bin"), add]).SerializeToString())
    imported = import_onnx(path)
    (got,) = Interpreter(imported.module, imported.weights, "f32").call("main", {"x": np.ones(2, np.float32)}).values()
    np.testing.assert_array_equal(got, [4, 5])


def test_external_data_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(8))
    monkeypatch.chdir(tmp_path)  # where `onnx` would find it
    refused(model([inner("w.bin"), node("Add", ["x", "w"], ["y"])]), "has no folder")


def test_weights_of_any_size_may_be_dequantised() -> None:
    large = Budget(stored=MAX_COMPUTED * 16)
    large.check([MAX_COMPUTED * 16], folding=True)
    large.keep(MAX_COMPUTED * 16)
    with pytest.raises(UnsupportedError):
        Budget(stored=16).check([MAX_COMPUTED * 16], folding=True)


def loop(name: str, body: list[onnx.NodeProto], result: str) -> onnx.NodeProto:
    """A loop of 4,000 steps over a state of two floats, ``v{name}``."""
    boolean, state = TensorProto.BOOL, [helper.make_tensor_value_info(result, TensorProto.FLOAT, [2])]
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"c{name}"], [f"going{name}"]), *body],
        name,
        [
            helper.make_tensor_value_info(f"i{name}", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"c{name}", boolean, []),
            helper.make_tensor_value_info(f"v{name}", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info(f"going{name}", boolean, []), *state],
    )
    source = {"inner": "vouter", "outer": "x"}[name]
    return helper.make_node("Loop", ["n", "", source], ["y" if name == "outer" else "w"], name=name, body=graph)


def test_nested_loops_that_unroll_to_millions_of_nodes() -> None:
    """The first step of the outer loop tells how many all are; the error names that loop."""
    inner = loop("inner", [helper.make_node("Add", ["vinner", "vinner"], ["u"])], "u")
    refused(model([loop("outer", [inner], "w")], scalar("n", 4000)), "(?s)outer.*a loop of 4000 steps of 8002 nodes")
