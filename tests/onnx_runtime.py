"""One ONNX node in ONNX Runtime (or the reference implementation of the onnx package) and in the interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from xdsl.dialects.builtin import ModuleOp

from pimc.frontends.onnx import import_onnx
from pimc.ir.interpreter import Interpreter

MICROSOFT = "com.microsoft"
Array = npt.NDArray[np.generic]
Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]


def _info(name: str, value: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def node_model(
    op: str,
    inputs: Sequence[Array | None],
    outputs: Sequence[str],
    *,
    domain: str = "",
    opset: int = 22,
    stored: Sequence[int] = (),
    attributes: dict[str, Attribute],
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of one node, its outputs without types, and values of its inputs; ``stored`` inputs are initializers."""
    names = [f"i{index}" if value is not None else "" for index, value in enumerate(inputs)]
    present = {index: (names[index], value) for index, value in enumerate(inputs) if value is not None}
    given = {name: value for index, (name, value) in present.items() if index not in stored}
    weights = [numpy_helper.from_array(value, name) for index, (name, value) in present.items() if index in stored]
    present_attributes = {key: value for key, value in attributes.items() if value != []}
    node = helper.make_node(op, names, outputs, domain=domain, **present_attributes)
    infos = [_info(name, value) for name, value in given.items()]
    results = [onnx.ValueInfoProto(name=name) for name in outputs if name]
    graph = helper.make_graph([node], "g", infos, results, weights)
    versions = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=10), given


def compare(
    op: str,
    inputs: Sequence[Array | None],
    outputs: int = 1,
    *,
    domain: str = "",
    opset: int = 22,
    stored: Sequence[int] = (),
    tolerance: float = 2e-5,
    wanted: Sequence[int] | None = None,
    reference: bool = False,
    **attributes: Attribute,
) -> ModuleOp:
    """Assert that both give the same (the outputs in ``wanted``, without it all); the imported module."""
    names = [f"o{index}" if wanted is None or index in wanted else "" for index in range(outputs)]
    model, given = node_model(op, inputs, names, domain=domain, opset=opset, stored=stored, attributes=attributes)
    present = [name for name in names if name]
    if reference:
        found = ReferenceEvaluator(model).run(None, given)
    else:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, given)
    expected = dict(zip(present, found, strict=True))
    del model.graph.output[:]
    model.graph.output.extend(_info(name, value) for name, value in expected.items())
    imported = import_onnx(model)
    imported.module.verify()
    got = Interpreter(imported.module, imported.weights, "f32").call("main", given)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
    return imported.module
