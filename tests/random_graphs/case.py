"""A graph to compile: as steps that can be made fewer, or as IR text; what came of it beside the reference."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from graphs import executable, module_of
from numpy.typing import NDArray
from typing_extensions import override
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.ir import Attribute, SSAValue

from pimc.diagnostics import TargetError, UnsupportedModelError
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.context import parse_module, print_module
from pimc.ir.interpreter import Interpreter, Precision

Array = NDArray[Any]
Shape = tuple[int, ...]
Make = Callable[..., SSAValue]

#: Of the largest magnitude of a result (at least 1): the bound on its difference from the interpreter in fp32, and how
#: often the interpreter's own difference between fp16 and fp32 is allowed on top.
RELATIVE, ROUNDING = 1 / 64, 4.0
_DTYPES = {"f": np.float32, "h": np.float16, "i": np.int64, "b": np.bool_}


@dataclass(frozen=True)
class Value:
    """A value of the graph: its shape, the kind of its elements (f: f32, h: f16, i: i64, b: i1), and whether no
    rounding has touched it.
    """

    shape: Shape
    kind: str = "f"
    exact: bool = False


@dataclass(frozen=True)
class Step:
    """How a value is made from earlier ones; an input or weight has an array in the place of operands."""

    name: str
    value: Value
    operands: tuple[int, ...] = ()
    make: Make | None = None
    array: Array | None = None

    @property
    def is_input(self) -> bool:
        return self.name == "input"


def interpreted(
    module: ModuleOp, weights: dict[str, Array], arrays: list[Array], precision: Precision = "f32"
) -> list[Array]:
    """What the reference gives for @main of a module; numbers that leave the range of floats are no warning."""
    interpreter = Interpreter(module, ModelWeights(weights), precision=precision)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = {f"arg{place}": array for place, array in enumerate(arrays)}
        return list(interpreter.call("main", named).values())


class Case(ABC):
    """Something to compile: a module with its weights, and inputs for it."""

    @abstractmethod
    def module(self) -> ModuleOp:
        """@main, made anew."""

    @abstractmethod
    def weights(self) -> dict[str, Array]:
        """By name."""

    @abstractmethod
    def arrays(self) -> list[Array]:
        """The inputs of @main, in order."""

    def interpreted(self, precision: Precision = "f32") -> list[Array]:
        """What the reference gives."""
        return interpreted(self.module(), self.weights(), self.arrays(), precision)


@dataclass(frozen=True)
class Graph(Case):
    """Steps in order, and the values that are returned."""

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def needed(self) -> list[int]:
        """The steps that the outputs need, in order; inputs stay as they are."""
        seen: set[int] = set()
        left = list(self.outputs)
        while left:
            index = left.pop()
            if index not in seen:
                seen.add(index)
                left.extend(self.steps[index].operands)
        return sorted(seen)

    def inputs(self) -> list[int]:
        return [index for index in self.needed() if self.steps[index].is_input]

    @override
    def module(self) -> ModuleOp:
        """@main with the needed steps."""
        inputs = self.inputs()

        def build(*arguments: SSAValue) -> list[SSAValue]:
            values = dict(zip(inputs, arguments, strict=True))
            for index in self.needed():
                step = self.steps[index]
                if index in values:
                    continue
                if step.make is None:
                    assert step.array is not None  # a weight
                    values[index] = nn.ParamOp(f"w.{index}.w", TensorType(f32, step.value.shape)).result
                else:
                    values[index] = step.make(*(values[operand] for operand in step.operands))
            return [values[index] for index in self.outputs]

        return module_of([self._array(index) for index in inputs], build)

    @override
    def weights(self) -> dict[str, Array]:
        return {
            f"w.{index}.w": self._array(index)
            for index in self.needed()
            if self.steps[index].make is None and not self.steps[index].is_input
        }

    @override
    def arrays(self) -> list[Array]:
        return [self._array(index) for index in self.inputs()]

    def _array(self, index: int) -> Array:
        array = self.steps[index].array
        assert array is not None  # an input or a weight
        return array


@dataclass(frozen=True)
class Written(Case):
    """A graph written as IR text; its weights and inputs (f32) are drawn from a seed."""

    text: str
    seed: int = 0

    @override
    def module(self) -> ModuleOp:
        return parse_module(self.text)

    @override
    def weights(self) -> dict[str, Array]:
        rng = np.random.default_rng(self.seed)
        params = [op for op in self.module().walk() if isinstance(op, nn.ParamOp)]
        return {op.weight_name.data: _normal(rng, op.result.type) for op in params}

    @override
    def arrays(self) -> list[Array]:
        rng = np.random.default_rng(self.seed + 1)
        (function,) = (op for op in self.module().walk() if isinstance(op, func.FuncOp))
        return [_normal(rng, type_) for type_ in function.function_type.inputs]


def _normal(rng: np.random.Generator, type_: Attribute) -> Array:
    """Elements around a quarter that fp16 holds."""
    assert isinstance(type_, TensorType)
    return (rng.standard_normal(type_.get_shape()) / 4).astype(np.float16).astype(np.float32)


# -- trying -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of a graph: "right", "refused" (by the compiler, with a reason), or "failed"."""

    kind: str
    reason: str = ""


def attempt(graph: Case, overrides: tuple[str, ...] = ()) -> Outcome:
    """Compile the graph for hpim with other figures, run it with all checks, and compare it with the reference."""
    exact, rounded = graph.interpreted(), graph.interpreted("f16")
    try:
        compiled = executable(graph.module(), graph.weights(), overrides)
        results = compiled.run(*graph.arrays()).outputs
    except UnsupportedModelError as error:
        return Outcome("refused", str(error).splitlines()[0])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        refused = isinstance(error, TargetError) and "does not fit" in str(error)
        return Outcome("refused" if refused else "failed", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    for index, (got, want, near) in enumerate(zip(results.values(), exact, rounded, strict=True)):
        difference = _difference(got, want, near)
        if difference is not None:
            return Outcome("failed", f"output {index} of shape {want.shape} is wrong: {difference}")
    return Outcome("right")


def _difference(got: Array, want: Array, near: Array) -> str | None:
    if got.shape != want.shape:
        return f"its shape is {got.shape}"
    if want.dtype.kind in "iub":
        return None if np.array_equal(got, want) else f"{int(np.sum(got != want))} of {want.size} elements differ"
    if want.size == 0:
        return None
    wide = want.astype(np.float64)
    bound = RELATIVE * max(1.0, float(np.abs(wide).max())) + ROUNDING * float(
        np.abs(near.astype(np.float64) - wide).max()
    )
    error = float(np.max(np.abs(got.astype(np.float64) - wide)))
    return None if error <= bound else f"by {error:.4g}, the bound is {bound:.4g}"


def shrunk(graph: Graph, outcome: Outcome, overrides: tuple[str, ...] = ()) -> Graph:
    """A smaller graph that fails alike: fewer outputs, inputs in the place of steps."""
    kind = outcome.reason.split(":")[0].split(" ")[0]
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(graph):
            found = attempt(candidate, overrides)
            if found.kind == outcome.kind and found.reason.split(":")[0].split(" ")[0] == kind:
                graph, smaller = candidate, True
                break
    return graph


def _smaller(graph: Graph) -> Iterator[Graph]:
    needed = graph.needed()
    if len(graph.outputs) > 1:
        for output in graph.outputs:
            yield replace(graph, outputs=(output,))
    for index in needed[:-1]:
        if graph.steps[index].make is not None:
            yield replace(graph, outputs=(index,))
    values = dict(zip(needed, replace(graph, outputs=tuple(needed)).interpreted(), strict=True))
    for index in reversed(needed):
        step = graph.steps[index]
        if step.make is not None and index not in graph.outputs:
            array = values[index].astype(_DTYPES[step.value.kind])
            given = Step("input", step.value, array=array)
            yield replace(graph, steps=(*graph.steps[:index], given, *graph.steps[index + 1 :]))


def text_of(graph: Case) -> str:
    """The graph as IR text."""
    return print_module(graph.module())
