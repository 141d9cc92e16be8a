"""The cases: the node tests that ship in the ``onnx`` package, written by the ONNX project."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase

Array: TypeAlias = npt.NDArray[Any]


_SHORT: Final = {
    "sce": "SoftmaxCrossEntropyLoss",
    "nllloss": "NegativeLogLikelihoodLoss",
    "mvn": "MeanVarianceNormalization",
}
"""Operators by the short names that cases have."""


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
        if self.source.model is not None:
            return self.source.model
        return onnx.load(str(Path(self.source.model_dir) / "model.onnx"))

    @cached_property
    def arrays(self) -> tuple[dict[str, Any], list[Any]]:
        """Inputs by name, and the expected outputs in order; anything but arrays where a case has sequences."""
        if self.source.data_sets:
            inputs, outputs = self.source.data_sets[0]
        else:
            folder = Path(self.source.model_dir) / "test_data_set_0"
            inputs, outputs = _read(folder, "input"), _read(folder, "output")
        names = [value.name for value in self.model.graph.input]
        return dict(zip(names, map(_array, inputs), strict=False)), [_array(output) for output in outputs]


def _array(value: object) -> Any:  # noqa: ANN401 - sequences and strings too
    """A tensor as an array; a sequence, an optional or a string stays what it is: the frontend refuses its model."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _read(folder: Path, kind: str) -> list[Any]:
    files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
    found: list[Any] = []
    for path in files:
        tensor = TensorProto()
        try:
            tensor.ParseFromString(path.read_bytes())
            found.append(numpy_helper.to_array(tensor))
        except Exception:  # noqa: BLE001 - a sequence or an optional: the frontend refuses its model
            found.append(None)
    return found


def load_cases(pattern: str = "") -> list[Case]:
    """All node cases whose name has ``pattern``, in order of their names."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    return sorted(_cases(tests, pattern), key=lambda case: case.name)


def _cases(tests: list[TestCase], pattern: str) -> Iterator[Case]:
    for test in tests:
        if re.search(pattern, test.name):
            yield Case(test.name, _operator(test), test.rtol, test.atol, test)


def _operator(test: TestCase) -> str:
    """What a case is about: the operator, also of a case that has its definition in the operator's place."""
    model = test.model if test.model is not None else onnx.load(str(Path(test.model_dir) / "model.onnx"))
    if "_expanded" not in test.name:
        return str(model.graph.node[0].op_type)
    words = test.name.removeprefix("test_").partition("_expanded")[0].replace("_", "")
    known = sorted({schema.name for schema in onnx.defs.get_all_schemas()}, key=len, reverse=True)
    for short, name in _SHORT.items():
        if words.startswith(short):
            return name
    for name in known:
        if words.startswith(name.lower()):
            return name
    return next((name for name in known if name.lower().startswith(words[:5])), words)
