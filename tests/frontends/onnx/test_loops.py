"""Loops and scans of a known number of steps are unrolled; the others are refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pimc.frontends.onnx import import_onnx
from pimc.frontends.unsupported import UnsupportedModelError
from pimc.ir.interpreter import Interpreter

RNG = np.random.default_rng(2)
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def scan_model(*, backwards: int) -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Mul", ["t", "e"], ["o"])],
        "body",
        [info("s", FLOAT, 2), info("e", FLOAT, 2)],
        [info("t", FLOAT, 2), info("o", FLOAT, 2)],
    )
    node = helper.make_node(
        "Scan", ["start", "x"], ["last", "all"], body=body, num_scan_inputs=1, scan_input_directions=[backwards],
        scan_output_directions=[backwards], scan_output_axes=[1],
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "g",
        [info("start", FLOAT, 2), info("x", FLOAT, 5, 2)],
        [info("last", FLOAT, 2), info("all", FLOAT, 2, 5)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("backwards", [0, 1])
def test_scan(backwards: int) -> None:
    model = scan_model(backwards=backwards)
    inputs = {"start": RNG.random(2, np.float32), "x": RNG.random((5, 2), np.float32)}
    imported = import_onnx(model)
    got = Interpreter(imported.module, imported.weights, "f32").call("main", inputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, want in zip(("last", "all"), session.run(None, inputs), strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-6)


def loop_model(stored: bool) -> onnx.ModelProto:
    """x doubled while the step is below 3, at most ``steps`` times; collects every x."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["v", "v"], ["w"]),
            helper.make_node("Constant", [], ["two"], value_int=2),
            helper.make_node("Less", ["i", "two"], ["more"]),
            helper.make_node("Identity", ["w"], ["seen"]),
        ],
        "body",
        [info("i", INT), info("c", BOOL), info("v", FLOAT, 2)],
        [info("more", BOOL), info("w", FLOAT, 2), info("seen", FLOAT, 2)],
    )
    values = [numpy_helper.from_array(np.array(9), "steps"), numpy_helper.from_array(np.array(True), "go")]
    inputs = [info("x", FLOAT, 2)] if stored else [info("x", FLOAT, 2), info("steps", INT), info("go", BOOL)]
    graph = helper.make_graph(
        [helper.make_node("Loop", ["steps", "go", "x"], ["y", "all"], body=body)],
        "g", inputs, [info("y", FLOAT, 2), info("all", FLOAT, 3, 2)], values if stored else [],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_loop_that_ends_by_its_condition() -> None:
    imported = import_onnx(loop_model(stored=True))
    x = RNG.random(2, np.float32)
    got = Interpreter(imported.module, imported.weights, "f32").call("main", {"x": x})
    np.testing.assert_allclose(got["y"], 8 * x)
    np.testing.assert_allclose(got["all"], [2 * x, 4 * x, 8 * x])


def test_loop_of_unknown_length_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"trip count or condition of a loop.*go, steps"):
        import_onnx(loop_model(stored=False))
    bound = {"steps": np.array(3), "go": np.array(True)}
    imported = import_onnx(loop_model(stored=False), bind=bound)
    x = RNG.random(2, np.float32)
    got = Interpreter(imported.module, imported.weights, "f32").call("main", {"x": x})
    np.testing.assert_allclose(got["y"], 8 * x)
