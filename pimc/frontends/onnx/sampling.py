"""Sampling of images at computed places: GridSample in any number of dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.dialects.builtin import f32, i32
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

_MODES: Final[Mapping[str, str]] = {
    "nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic", "bicubic": "cubic",
}  # fmt: skip


@dataclass(frozen=True)
class Dimension:
    """One dimension of the image that is sampled."""

    context: NodeContext
    size: int
    corners: bool
    padding: str

    @property
    def terms(self) -> Expressions:
        """Arithmetic at this node."""
        return Expressions(self.context)

    @property
    def low(self) -> float:
        """The border that places are reflected at."""
        return 0.0 if self.corners else -0.5

    @property
    def high(self) -> float:
        """The other border."""
        return self.size - 1.0 if self.corners else self.size - 0.5

    def place(self, normal: SSAValue) -> SSAValue:
        """A coordinate between -1 and 1 as a place between the first and the last element."""
        terms = self.terms
        if self.corners:
            return terms.mul(terms.add(normal, 1.0), (self.size - 1) / 2.0)
        return terms.mul(terms.sub(terms.mul(terms.add(normal, 1.0), float(self.size)), 1.0), 0.5)

    def reflect(self, x: SSAValue) -> SSAValue:
        """Mirrored at the borders until it is between them."""
        terms, span = self.terms, self.high - self.low
        if span <= 0:
            return terms.mul(x, 0.0)
        period = self.context.like(2 * span, x)
        turn = self.context.emit(nn.ModOp(terms.sub(x, self.low), period))
        return terms.add(terms.minimum(turn, terms.sub(2 * span, turn)), self.low)

    def bounded(self, place: SSAValue) -> SSAValue:
        """A place with the padding applied where it is beyond the borders."""
        terms = self.terms
        if self.padding == "reflection":
            return self.reflect(place)
        if self.padding == "border":
            inside = terms.both(terms.compare(place, "ge", self.low), terms.compare(place, "le", self.high))
            return terms.select(inside, place, terms.clip(place, 0.0, self.size - 1.0))
        return place

    def element(self, index: SSAValue) -> tuple[SSAValue, SSAValue | None]:
        """An element's index that is in range (i32), and whether it counts (None: it does)."""
        terms, last = self.terms, self.size - 1.0
        valid: SSAValue | None = None
        if self.padding == "zeros":
            inside = terms.both(terms.compare(index, "ge", 0.0), terms.compare(index, "le", last))
            valid = self.context.cast(inside, f32)
        elif self.padding == "reflection":
            index = self.reflect(index)
        return self.context.cast(terms.clip(index, 0.0, last), i32), valid


def _weights(terms: Expressions, mode: str, fraction: SSAValue) -> list[tuple[int, SSAValue | None]]:
    """Neighbours of the element before a place, and the weight of each (None: 1)."""
    if mode == "nearest":
        return [(0, None)]
    rest = terms.sub(1.0, fraction)
    if mode == "linear":
        return [(0, rest), (1, fraction)]
    a = -0.75

    def near(x: SSAValue) -> SSAValue:
        inner = terms.sub(terms.mul(x, a + 2), a + 3)
        return terms.add(terms.mul(terms.mul(inner, x), x), 1.0)

    def far(x: SSAValue) -> SSAValue:
        inner = terms.add(terms.mul(terms.sub(terms.mul(x, a), 5 * a), x), 8 * a)
        return terms.sub(terms.mul(inner, x), 4 * a)

    before, behind = terms.add(fraction, 1.0), terms.add(rest, 1.0)
    return [(-1, far(before)), (0, near(fraction)), (1, near(rest)), (2, far(behind))]


def _neighbours(dimension: Dimension, mode: str, normal: SSAValue) -> list[tuple[SSAValue, SSAValue | None]]:
    """Index and weight of each element that a sample takes from along one dimension."""
    context, terms = dimension.context, dimension.terms
    place = dimension.place(normal)
    if mode == "nearest":
        place = context.emit(nn.RoundOp(place))
    place = dimension.bounded(place)
    first = place if mode == "nearest" else context.emit(nn.FloorOp(place))
    found: list[tuple[SSAValue, SSAValue | None]] = []
    for offset, weight in _weights(terms, mode, terms.sub(place, first)):
        index, valid = dimension.element(terms.add(first, float(offset)) if offset else first)
        if valid is not None:
            weight = valid if weight is None else terms.mul(weight, valid)
        found.append((index, weight))
    return found


def _grid_sample(context: NodeContext) -> Converted:
    """x ``[N, C, size...]`` at the places ``[N, out..., dimensions]`` (the last dimension of x comes first)."""
    terms = Expressions(context)
    x, grid = context.value(0), context.cast(context.value(1), f32)
    batch, channels, *sizes = context.shape_of(x)
    outputs = context.shape_of(grid)[1:-1]
    count = math.prod(outputs)
    mode = _MODES.get(context.attr_str("mode", "linear"))
    if mode is None:
        raise UnsupportedError(f"the mode {context.attr_str('mode')!r}", "nearest, linear or cubic")
    padding, corners = context.attr_str("padding_mode", "zeros"), bool(context.attr_int("align_corners", 0))
    flat_grid = context.reshape(grid, (batch, count, len(sizes)))
    choices = []
    for axis, size in enumerate(sizes):
        normal = terms.at(flat_grid, 2, len(sizes) - 1 - axis)
        choices.append(_neighbours(Dimension(context, size, corners, padding), mode, normal))
    image = context.reshape(x, (batch, channels, math.prod(sizes)))
    total: SSAValue | None = None
    for corner in itertools.product(*choices):
        part = _corner(context, image, sizes, corner, count)
        total = part if total is None else terms.add(total, part)
    if total is None:
        raise UnsupportedError("an image without dimensions")
    return context.reshape(total, (batch, channels, *outputs))


def _corner(
    context: NodeContext,
    image: SSAValue,
    sizes: Sequence[int],
    corner: Sequence[tuple[SSAValue, SSAValue | None]],
    count: int,
) -> SSAValue:
    """The weighted elements at one combination of neighbours: ``[N, C, count]``."""
    terms = Expressions(context)
    batch, channels, _ = context.shape_of(image)
    flat: SSAValue | None = None
    weight: SSAValue | None = None
    for (index, factor), size in zip(corner, sizes, strict=True):
        flat = index if flat is None else terms.add(terms.mul(flat, size), index)
        if factor is not None:
            weight = factor if weight is None else terms.mul(weight, factor)
    if flat is None:
        raise UnsupportedError("an image without dimensions")
    indices = context.broadcast(context.reshape(flat, (batch, 1, count)), (batch, channels, count))
    part = context.emit(nn.GatherElementsOp(image, indices, 2))
    if weight is None:
        return part
    factor = context.cast(context.reshape(weight, (batch, 1, count)), context.element_of(image))
    return terms.mul(part, factor)


TABLE: Final[Mapping[str, Converter]] = {"GridSample": _grid_sample}
"""Converters by operator."""
