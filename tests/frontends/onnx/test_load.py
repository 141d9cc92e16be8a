"""Malformed and hostile models: one error of one line each, and none reaches further than the loader."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from xdsl.dialects.func import FuncOp

from pimc.diagnostics import InputError, UnsupportedModelError
from pimc.frontends.onnx import import_onnx
from pimc.frontends.onnx.nodes import needed_inputs
from pimc.ir import nn
from pimc.ir.interpreter import Interpreter
from pimc.ir.locations import location_text


def value(name: str, *shape: int | str, element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, list(shape))


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[str],
    tensors: list[TensorProto] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    indices = {"kept"}
    types = [TensorProto.INT64 if name in indices else TensorProto.FLOAT for name in outputs]
    results = [helper.make_tensor_value_info(name, type_, None) for name, type_ in zip(outputs, types, strict=True)]
    graph = helper.make_graph(nodes, "g", inputs, results, tensors or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def relu() -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"], name="act")], [value("x", 2, 3)], ["y"])


def external(folder: Path, location: str, **entries: object) -> Path:
    """A model whose only weight is in the file ``location``."""
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, item in {"location": location, **entries}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, str(item)
    path = folder / "model.onnx"
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", 2, 3)], ["y"], [weight])
    path.write_bytes(proto.SerializeToString())
    return path


def refuse(source: Path | onnx.ModelProto, match: str, **options: object) -> str:
    with pytest.raises(InputError, match=match) as caught:
        import_onnx(source, **options)  # type: ignore[arg-type]
    assert "\n" not in caught.value.message
    return str(caught.value)


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    whole = relu().SerializeToString()
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in refuse(path, "truncated|malformed|not defined|no graph|not an ONNX")


def test_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x93NUMPY" + os.urandom(200))
    refuse(path, "not an ONNX model|no graph")
    path.write_bytes(b"")
    refuse(path, "no graph")


def test_missing_file(tmp_path: Path) -> None:
    refuse(tmp_path / "none.onnx", "cannot be read")


def test_cyclic() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], name="first"), helper.make_node("Relu", ["a"], ["b"])]
    assert "first" in refuse(model(nodes, [value("x", 2)], ["b"]), "cycle")


def test_undefined_and_doubly_defined() -> None:
    refuse(model([helper.make_node("Add", ["x", "z"], ["y"])], [value("x", 2)], ["y"]), "'z'.*not defined")
    twice = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])]
    refuse(model(twice, [value("x", 2)], ["y"]), "defined twice")
    refuse(model([helper.make_node("Relu", ["x"], ["y"])], [value("x", 2)], ["q"]), "output 'q' is not defined")


def test_external_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(12, dtype=np.float32).tobytes())
    imported = import_onnx(external(tmp_path, "w.bin"))
    x = np.ones((2, 3), np.float32)
    (got,) = Interpreter(imported.module, imported.weights, "f32").call("main", {"x": x}).values()
    np.testing.assert_array_equal(got, x @ np.arange(12, dtype=np.float32).reshape(3, 4))


def test_external_data_missing(tmp_path: Path) -> None:
    refuse(external(tmp_path, "w.bin"), "'w' is missing: w.bin")


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "a/../../outside.bin", "", "."])
def test_external_data_outside(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(48))
    refuse(external(folder, location), "outside the model's folder")


def test_external_data_through_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(48))
    (folder / "w.bin").symlink_to(tmp_path / "outside.bin")
    refuse(external(folder, "w.bin"), "outside the model's folder")


@pytest.mark.parametrize("entries", [{"offset": 16}, {"offset": -4}, {"length": 40}, {"offset": "x"}])
def test_external_data_of_another_size(tmp_path: Path, entries: dict[str, object]) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(48))
    refuse(external(tmp_path, "w.bin", **entries), "needs bytes|no valid place")


def test_absurd_sizes() -> None:
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 20])
    add = [helper.make_node("Add", ["x", "w"], ["y"])]
    refuse(model(add, [value("x", 2)], ["y"], [huge]), "'w' says it has the shape")
    refuse(model([helper.make_node("Relu", ["x"], ["y"])], [value("x", 1 << 40)], ["y"]), "'x' says it has the shape")
    negative = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-3])
    refuse(model(add, [value("x", 2)], ["y"], [negative]), "'w' says it has the shape")


def test_values_that_do_not_fill_the_shape() -> None:
    short = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(8))
    refuse(model([helper.make_node("Add", ["x", "w"], ["y"])], [value("x", 4)], ["y"], [short]), "'w' do not fill")


def test_inconsistent_types() -> None:
    nodes = [helper.make_node("MatMul", ["x", "z"], ["y"])]
    refuse(model(nodes, [value("x", 2, 3), value("z", 4, 5)], ["y"]), "inconsistent|malformed")


def test_newer_opset() -> None:
    refuse(model([helper.make_node("Relu", ["x"], ["y"])], [value("x", 2)], ["y"], opset=99), "opset 99")


def test_older_opset() -> None:
    add = model([helper.make_node("Add", ["x", "x"], ["y"], name="sum")], [value("x", 2)], ["y"], opset=6)
    refuse(add, "'sum' is Add of opset 6; 7 is the oldest")
    same = model([helper.make_node("Tanh", ["x"], ["y"])], [value("x", 2)], ["y"], opset=6)
    assert isinstance(import_onnx(same).module.body.first_block.first_op, FuncOp)  # it has not changed since


def test_symbolic_shapes() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", 1, "tokens", 4)], ["y"])
    with pytest.raises(InputError, match="without a fixed shape: x") as caught:
        import_onnx(proto)
    assert "--shape x=1,128" in str(caught.value.hint)
    (function,) = import_onnx(proto, shapes={"x": (1, 7, 4)}).module.ops
    assert "tensor<1x7x4xf32>" in str(function)
    refuse(proto, "has 4 where 5", shapes={"x": (1, 7, 5)})
    refuse(proto, "3 dimensions", shapes={"x": (7, 4)})
    refuse(proto, "no input 'z'", shapes={"z": (7, 4)})


def test_one_name_one_size() -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    proto = model(nodes, [value("a", "n"), value("b", "n")], ["y"])
    refuse(proto, "two sizes", shapes={"a": (3,), "b": (4,)})
    (function,) = import_onnx(proto, shapes={"a": (3,)}).module.ops
    assert isinstance(function, FuncOp)
    assert [str(type_) for type_ in function.function_type.inputs] == ["tensor<3xf32>"] * 2


def test_unsupported_things_are_listed_at_once() -> None:
    nodes = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["kept"], name="head/nms"),
        helper.make_node("RandomNormalLike", ["x"], ["noise"], name="noise"),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    inputs = [value("boxes", 1, 6, 4), value("scores", 1, 1, 6), value("x", 2)]
    proto = model(nodes, inputs, ["y", "kept"])
    with pytest.raises(UnsupportedModelError) as caught:
        import_onnx(proto)
    found = {item.node: item for item in caught.value.items}
    assert list(found) == ["head/nms", "noise"], "what depends on them is not named again"
    assert found["noise"].alternative == "random numbers as an input of the model"
    assert all(item.operator and item.reason and item.alternative for item in found.values())


def test_source_lines_of_exporters_are_given() -> None:
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["kept"], name="nms")
    trace = node.metadata_props.add()
    trace.key, trace.value = "pkg.torch.onnx.stack_trace", 'File "/home/user/model.py", line 12, in forward\n  x = f(y)'
    proto = model([node], [value("boxes", 1, 6, 4), value("scores", 1, 1, 6)], ["kept"])
    with pytest.raises(UnsupportedModelError, match=r"nms, model.py:12"):
        import_onnx(proto)


def test_shapes_that_depend_on_inputs_can_be_bound() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="fold")]
    proto = model(nodes, [value("x", 2, 6), value("shape", 2, element=TensorProto.INT64)], ["y"])
    with pytest.raises(UnsupportedModelError, match="not known at compile time") as caught:
        import_onnx(proto)
    assert needed_inputs(caught.value) == {"shape"}
    imported = import_onnx(proto, bind={"shape": np.array([3, -1])})
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    (got,) = Interpreter(imported.module, imported.weights, "f32").call("main", {"x": x}).values()
    np.testing.assert_array_equal(got, x.reshape(3, 4))
    refuse(proto, "no input 'z' to bind", bind={"z": np.array([1])})


def test_operations_have_the_names_of_nodes() -> None:
    (function,) = import_onnx(relu()).module.ops
    found = [location_text(op.location) for op in function.walk() if isinstance(op, nn.ReluOp)]
    assert len(found) == 1
    assert "act" in found[0]


def test_local_functions_are_inlined() -> None:
    body = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 21)]
    )
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="mine")], [value("x", 2)], ["y"])
    proto.functions.append(body)
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    imported = import_onnx(proto)
    (got,) = Interpreter(imported.module, imported.weights, "f32").call("main", {"x": np.ones(2)}).values()
    np.testing.assert_array_equal(got, [2, 2])


def test_the_model_in_memory_is_left_alone() -> None:
    proto = relu()
    before = proto.SerializeToString()
    import_onnx(proto)
    assert proto.SerializeToString() == before


@pytest.mark.parametrize("name", [b"y_name", b"Relu", b"doc_text"])
def test_texts_that_are_not_utf8(tmp_path: Path, name: bytes) -> None:
    graph = relu()
    graph.graph.node[0].name, graph.graph.node[0].doc_string = "y_name", "doc_text"
    damaged = graph.SerializeToString().replace(name, b"\xee" + name[1:])
    path = tmp_path / "m.onnx"
    path.write_bytes(damaged)
    refuse(path, "NodeProto is not UTF-8 text")


def test_external_data_with_a_null_character(tmp_path: Path) -> None:
    refuse(external(tmp_path, "a\0b"), "no valid place")


def test_a_reshape_to_another_number_of_elements() -> None:
    """The shape is a constant of the model, so the file is at fault, not the compiler that would meet it later."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 5])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 1, 1])]
    shape = numpy_helper.from_array(np.array([2, 1, 1], np.int64), "shape")
    nodes = [helper.make_node("Reciprocal", ["x"], ["r"]), helper.make_node("Reshape", ["r", "shape"], ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [shape])
    with pytest.raises(InputError, match="differ in elements"):
        import_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
