"""The cases of ONNX: the node tests that ship in the ``onnx`` package, written by the ONNX project."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_node_model_tests

from conformance.columns import Case, interpret
from conformance.outcomes import RTOL_16_BIT, Array, Column, Decided, Tolerance, half, hardware_tolerance
from pimc.diagnostics import UnsupportedModelError
from pimc.frontends.model import ImportedModel
from pimc.frontends.onnx import import_onnx
from pimc.frontends.onnx.nodes import needed_inputs


@dataclass(frozen=True, eq=False)
class OnnxCase(Case):
    """A node test: a model, its inputs and outputs, and how near an output must be."""

    rtol: float
    atol: float
    source: TestCase

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model."""
        assert self.source.model is not None  # node cases carry theirs
        return self.source.model

    @cached_property
    def arrays(self) -> tuple[dict[str, Any], list[Any]]:  # type: ignore[override]
        """Inputs by name, and the expected outputs in order; anything but arrays where a case has sequences."""
        ((inputs, outputs),) = self.source.data_sets or ()
        names = [value.name for value in self.model.graph.input]
        return dict(zip(names, map(_array, inputs), strict=True)), [_array(output) for output in outputs]

    def imported(self) -> tuple[ImportedModel, tuple[str, ...]]:
        """The imported model; inputs that its shapes depend on get the case's values."""
        inputs, _ = self.arrays
        bind: dict[str, Array] = {}
        while True:
            try:
                return import_onnx(self.model, bind=bind), tuple(sorted(bind))
            except UnsupportedModelError as error:
                more = needed_inputs(error) - set(bind)
                if not more or any(inputs.get(name) is None for name in more):
                    raise
                bind |= {name: np.asarray(inputs[name]) for name in more}

    def tolerance(self, column: Column, want: Array) -> Tolerance:
        """The case's own tolerances for the interpreter; those of 16 bits and of the hardware are wider."""
        if column == "hardware":
            return hardware_tolerance(want, Tolerance(self.rtol, self.atol))
        rtol = RTOL_16_BIT.get(want.dtype.name, 0.0)
        return Tolerance(max(self.rtol, rtol), max(self.atol, rtol / 16))

    def judge_rounded(self, bound: tuple[str, ...], got: list[Array]) -> None:
        """Refuse a case that fp16 cannot put (softmax of 10000, 10001 ...): the fp32 reference gives the expected
        outputs, but not once the inputs are rounded to fp16; and then it gives what the hardware gives.
        """
        inputs, expected = self.arrays
        model, _ = self.imported()
        exact = {name: np.asarray(value) for name, value in inputs.items() if name not in bound}
        reference = interpret(model, {name: half(value) for name, value in exact.items()})
        outside = self.difference("hardware", reference, expected)
        right = not self.difference("hardware", interpret(model, exact), expected)
        if right and outside and not self.difference("hardware", got, reference):
            raise Decided("refused", "inputs that fp16 cannot tell apart")


def _array(value: object) -> Any:  # noqa: ANN401 - sequences and strings too
    """A tensor as an array; a sequence, an optional or a string stays what it is: the frontend refuses its model."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def load_cases(modules: Sequence[str] = ()) -> list[OnnxCase]:
    """All node cases, in order of their names; with ``modules`` (``softmax``, ``gather`` ...) those of these alone.

    Making all of them takes some seconds: `onnx` generates the models and computes what they expect.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if modules:
            for module in modules:
                importlib.import_module(f"onnx.backend.test.case.node.{module}")
            from onnx.backend.test.case.node import _NodeTestCases as tests
        else:
            tests = load_node_model_tests()
    operators = {test.name: _operator(test) for test in tests}
    return [
        OnnxCase(test.name, operators[test.name.partition("_expanded")[0]], test.rtol, test.atol, test)
        for test in sorted(tests, key=lambda test: test.name)
    ]


def _operator(test: TestCase) -> str:
    """The operator of a case's first node; cases ``..._expanded`` have its definition there and go by the other's."""
    assert test.model is not None  # node cases carry theirs
    node = test.model.graph.node[0]
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else str(node.op_type)
