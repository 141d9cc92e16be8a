"""A random graph that is being drawn: its steps so far, and what rules ask of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import f16, f32, i1, i64
from xdsl.ir import SSAValue

from pimc.ir import nn
from pimc.ir.nn.source import Element
from random_graphs.case import Array, Make, Shape, Step, Value

#: Element types of the kinds of a value.
ELEMENTS: dict[str, Element] = {"f": f32, "h": f16, "i": i64, "b": i1}
#: Sizes that dimensions have, and how many elements the tensors that are drawn have at most.
SIZES: Shape = (1, 1, 2, 3, 4, 5, 8, 16, 18, 32, 33)
ELEMENTS_AT_MOST = 1024


def constant(number: float) -> SSAValue:
    """An f32 number."""
    return nn.ConstantOp.from_array(np.float64(number), f32).result


@dataclass
class Drawing:
    """A graph being drawn."""

    random: random.Random
    steps: list[Step] = field(default_factory=list)
    sizes: Shape = SIZES
    elements: int = ELEMENTS_AT_MOST

    def add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def op(self, name: str, value: Value, operands: Sequence[int], make: Make) -> int:
        return self.add(Step(name, value, tuple(operands), make))

    def numbers(self) -> np.random.Generator:
        """A generator of numpy's for the elements of one tensor."""
        return np.random.default_rng(self.random.getrandbits(32))

    def given(self, array: Array) -> int:
        """An input with these elements; integers and truth values are sometimes a constant of the graph."""
        kind = "f" if array.dtype.kind == "f" else array.dtype.kind
        value = Value(array.shape, kind, True)
        if kind in "ib" and array.size and self.random.random() < 0.3:
            return self.op(
                "nn.constant", value, [], lambda: nn.ConstantOp.from_array(array, ELEMENTS[kind]).result
            )  # fmt: skip
        return self.add(Step("input", value, array=array))

    def source(self, shape: Shape, kind: str = "f", *, weight: bool | None = None, scale: float = 1.0) -> int:
        """An input, or (of floats) a weight; values are fp16 numbers."""
        rng = self.numbers()
        if kind == "i":
            return self.given(rng.integers(-9, 9, shape))
        if kind == "b":
            return self.given(rng.random(shape) < 0.5)
        array: Array = (rng.standard_normal(shape) * scale).astype(np.float16).astype(np.float32)
        stored = self.random.random() < 0.4 if weight is None else weight
        return self.add(Step("weight" if stored else "input", Value(shape, "f", True), array=array))

    def indices(self, below: int, shape: Shape) -> int:
        """Places in a dimension, some counted from its end."""
        return self.given(self.numbers().integers(-below, below, shape))

    def shape(self, rank: int | None = None) -> Shape:
        rank = self.random.choice((1, 2, 2, 3)) if rank is None else rank
        drawn = [self.random.choice(self.sizes) for _ in range(rank)]
        for place in range(rank - 1):
            if np.prod(drawn) > self.elements:
                drawn[place] = 1
        return tuple(drawn)

    def pick(self, test: Callable[[Value], bool]) -> int | None:
        """A value that passes, later ones more often."""
        found = [index for index, step in enumerate(self.steps) if test(step.value)]
        return self.random.choice(found[-6:] if self.random.random() < 0.7 else found) if found else None

    def floats(self, least_rank: int = 1) -> int:
        found = self.pick(lambda value: value.kind == "f" and len(value.shape) >= least_rank)
        return self.source(self.shape(max(least_rank, 2))) if found is None else found

    def of_kind(self, kind: str) -> int:
        """A value of a kind, exact."""
        found = self.pick(lambda value: value.kind == kind and value.exact and len(value.shape) >= 1)
        return self.source(self.shape(), kind) if found is None else found

    def exact(self) -> int:
        """A float, integer or truth value that no rounding has touched."""
        return self.of_kind(self.random.choice("ffib"))

    def anything(self) -> int:
        """A value of any kind: floats more often."""
        return self.floats() if self.random.random() < 0.7 else self.exact()

    def like(self, x: int) -> int:
        """Another value of the kind of x whose shape broadcasts to that of x."""
        value = self.value(x)
        other = self.pick(lambda found: found.kind == value.kind and found.shape == value.shape)
        if other is None or self.random.random() < 0.4:
            other = self.source(
                tuple(size if self.random.random() < 0.6 else 1 for size in value.shape), value.kind
            )  # fmt: skip
        return other

    def axis(self, x: int) -> int:
        return self.random.randrange(len(self.value(x).shape))

    def value(self, index: int) -> Value:
        return self.steps[index].value


#: Adds steps to a drawing.
Rule = Callable[[Drawing], None]
