"""The cases of PyTorch: the samples of its own operator database, those of float32 tensors on the CPU.

Each is imported as a user's module is: one whose ``forward`` takes the sample's tensors and calls the operator.
"""

from __future__ import annotations

import random
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any, Final
from unittest import mock

import ml_dtypes
import numpy as np
import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from conformance.columns import Case
from conformance.outcomes import RTOL_16_BIT, Array, Column, Decided, Tolerance, hardware_tolerance
from pimc.frontends.model import ImportedModel
from pimc.frontends.torch_program import export_module, import_program, prepare

RTOL_FP32: Final = 1e-3
ATOL_FP32: Final = 1e-5
"""The interpreter's tolerance: relative; and absolute, or relative to the largest number of the output if that is more
than 1 (PyTorch's own tests have this absolute tolerance).
"""

CAP: Final = 4
"""Samples of an operator; of those that have more, so many are drawn."""

_UNINITIALISED: Final = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")
_SEEDS: Final = (20, 26)


class _Place:
    """Where a tensor stood in the arguments of an operator."""


@dataclass(frozen=True, eq=False)
class TorchCase(Case):
    """A sample: the operator, and its arguments with places for tensors."""

    function: Callable[..., object]
    leaves: tuple[object, ...]
    spec: pytree.TreeSpec
    tensors: tuple[torch.Tensor, ...]

    @cached_property
    def arrays(self) -> tuple[dict[str, Any], list[Any]]:  # type: ignore[override]
        """The sample's tensors, and what PyTorch makes of them."""
        if any(tensor.layout != torch.strided for tensor in self.tensors):
            raise Decided("outside", "sparse tensors")
        inputs = {f"tensors_{index}": _array(tensor) for index, tensor in enumerate(self.tensors)}
        if self.operator in _UNINITIALISED:
            raise Decided("outside", "memory that nothing has written")
        first, second = (self._eager(self.tensors, seed) for seed in _SEEDS)
        if not first:
            raise Decided("outside", "no tensor as a result")
        if any(not _same(one, other) for one, other in zip(first, second, strict=True)):
            raise Decided("outside", "random numbers")
        return inputs, first

    def _eager(self, tensors: Sequence[torch.Tensor], seed: int = _SEEDS[0]) -> list[Array]:
        """What PyTorch computes; the tensors of what the operator returns, in order."""
        torch.manual_seed(seed)
        module = _Call(self.function, self.leaves, self.spec)
        with torch.no_grad(), warnings.catch_warnings(), mock.patch("torch.manual_seed"):  # the database has its own
            warnings.simplefilter("ignore")
            try:
                found = module(*(tensor.clone() for tensor in tensors))
            except Exception as error:
                raise Decided("outside", "PyTorch does not run it on a CPU") from error
        results = [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        if any(result.layout != torch.strided for result in results):
            raise Decided("outside", "sparse tensors")
        return [_array(result) for result in results]

    def imported(self) -> tuple[ImportedModel, tuple[str, ...]]:
        """The imported model, of a program that is exported once for both columns."""
        return import_program(_exported(self), self.operator), ()

    def tolerance(self, column: Column, want: Array) -> Tolerance:
        """Of the interpreter, a few roundings of fp32; of the hardware, a few of fp16."""
        if column == "hardware":
            return hardware_tolerance(want)
        finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
        rtol = max(RTOL_FP32, RTOL_16_BIT.get(want.dtype.name, 0.0))
        return Tolerance(rtol, ATOL_FP32 * max(1.0, float(finite.max(initial=0.0))))

    def judge_rounded(self, bound: tuple[str, ...], got: list[Array]) -> None:
        """Right for rounded inputs: PyTorch, in fp32, gives what the hardware gives once the inputs are rounded to
        fp16.
        """
        rounded = [tensor.half().to(tensor.dtype) if tensor.is_floating_point() else tensor for tensor in self.tensors]
        expected = self._eager(rounded)
        if not self.difference("hardware", got, expected) or (
            len(expected) == 2 == len(got)
            and not self.difference("hardware", got[:1], expected[:1])
            and _are_places(_array(rounded[0]), *got)
        ):
            raise Decided("rounded", "")

    def same_type(self, have: Array, want: Array) -> bool:
        """Whole numbers come in the width that the hardware has; truth values are no numbers."""
        return (have.dtype.kind == "b") == (want.dtype.kind == "b")


class _Call(torch.nn.Module):
    """The module of a case."""

    def __init__(self, function: Callable[..., object], leaves: Sequence[object], spec: pytree.TreeSpec) -> None:
        super().__init__()
        self.function, self.leaves, self.spec = function, leaves, spec

    def forward(self, *tensors: torch.Tensor) -> object:
        """Call the operator."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, _Place) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return self.function(*args, **kwargs)


@lru_cache(maxsize=1)
def _exported(case: TorchCase) -> ExportedProgram:
    copies = [tensor.clone() for tensor in case.tensors]
    return prepare(export_module(_Call(case.function, case.leaves, case.spec), copies))


def _array(tensor: torch.Tensor) -> Array:
    """A tensor as an array; numpy itself has no bfloat16, and no complex numbers of halves."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.dtype == torch.bfloat16:
        return plain.float().numpy().astype(ml_dtypes.bfloat16)
    return (plain.cfloat() if plain.dtype == torch.complex32 else plain).numpy()


def _are_places(x: Array, values: Array, places: Array) -> bool:
    """Whether ``values`` stand at ``places`` along a dimension of ``x``.

    Among numbers that have become equal PyTorch does not say which one it names (``mode``, ``median``).
    """
    if places.dtype.kind not in "iu" or values.shape != places.shape:
        return False
    for axis in range(x.ndim):
        kept = x.ndim == values.ndim
        at, there = (array if kept else np.expand_dims(array, axis) for array in (places, values))
        beside = [size for dim, size in enumerate(x.shape) if dim != axis]
        if at.ndim == x.ndim and [size for dim, size in enumerate(at.shape) if dim != axis] == beside:
            inside = bool(((at >= 0) & (at < x.shape[axis])).all())
            if inside and np.array_equal(np.take_along_axis(x, at, axis), there, equal_nan=True):
                return True
    return False


def _same(one: Array, other: Array) -> bool:
    """Whether two runs gave the same; not to the last bit, which depends on where PyTorch's memory begins."""
    if one.shape != other.shape or one.dtype.kind not in "fc":
        return one.shape == other.shape and bool(np.array_equal(one, other))
    finite = np.abs(one[np.isfinite(one)])
    return bool(
        np.allclose(one, other, rtol=RTOL_FP32, atol=ATOL_FP32 * float(finite.max(initial=1.0)), equal_nan=True)
    )


def database() -> list[Any]:
    """PyTorch's operators that have samples of float32 tensors on the CPU, in order of their names."""
    if "expecttest" not in sys.modules:
        # PyTorch's test utilities derive test classes from it, which the database has no use for.
        sys.modules["expecttest"] = types.ModuleType("expecttest")
        sys.modules["expecttest"].TestCase = unittest.TestCase  # type: ignore[attr-defined]
    from torch.testing._internal.common_methods_invocations import op_db

    return sorted(
        (info for info in op_db if torch.float32 in info.supported_dtypes("cpu")), key=lambda info: str(info.full_name)
    )


def load_cases(patterns: Sequence[str] = ("*",), cap: int | None = CAP) -> list[TorchCase]:
    """The samples of the operators whose names fit one of the patterns (``softmax``, ``masked.*``).

    An operator with more than ``cap`` samples has so many, drawn with a seed that never changes.  Every operator's
    samples are made with the same seed, whatever else is loaded.
    """
    torch.set_num_threads(1)  # processes are forked from this one
    wanted = [info for info in database() if any(fnmatchcase(info.full_name, pattern) for pattern in patterns)]
    return [case for info in wanted for case in _cases(info, cap)]


def _cases(info: Any, cap: int | None) -> Iterator[TorchCase]:  # noqa: ANN401 - PyTorch is untyped here
    name = str(info.full_name)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what PyTorch's sample functions draw from
    random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(enumerate(info.sample_inputs("cpu", torch.float32, requires_grad=False)))
    if cap is not None and len(samples) > cap:
        random.Random(name).shuffle(samples)
        samples = sorted(samples[:cap], key=lambda item: item[0])
    for index, sample in samples:
        leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), dict(sample.kwargs)))
        tensors = tuple(leaf.detach() for leaf in leaves if isinstance(leaf, torch.Tensor))
        places = tuple(_Place() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
        yield TorchCase(f"{name}/{index}", name, info.op, places, spec, tensors)
