"""The cases: the node tests that ship in the ``onnx`` package, written by the ONNX project."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_node_model_tests

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One case: a model, its inputs and outputs, and how near an output must be."""

    name: str
    operator: str
    rtol: float
    atol: float
    source: TestCase

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model."""
        assert self.source.model is not None  # node cases carry theirs
        return self.source.model

    @cached_property
    def arrays(self) -> tuple[dict[str, Any], list[Any]]:
        """Inputs by name, and the expected outputs in order; anything but arrays where a case has sequences."""
        ((inputs, outputs),) = self.source.data_sets or ()
        names = [value.name for value in self.model.graph.input]
        return dict(zip(names, map(_array, inputs), strict=True)), [_array(output) for output in outputs]


def _array(value: object) -> Any:  # noqa: ANN401 - sequences and strings too
    """A tensor as an array; a sequence, an optional or a string stays what it is: the frontend refuses its model."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def load_cases(modules: Sequence[str] = ()) -> list[Case]:
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
        Case(test.name, operators[test.name.partition("_expanded")[0]], test.rtol, test.atol, test)
        for test in sorted(tests, key=lambda test: test.name)
    ]


def _operator(test: TestCase) -> str:
    """The operator of a case's first node; cases ``..._expanded`` have its definition there and go by the other's."""
    assert test.model is not None  # node cases carry theirs
    node = test.model.graph.node[0]
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else str(node.op_type)
