"""Resizing by interpolation: the weights are known at import, so it is a product or a gather along each axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import IntegerType, f32, i1, i32
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.onnx.limits import bounded
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_NEAREST: Final[Mapping[str, Callable[[Floats], Floats]]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Axis:
    """How one axis is resized; ``start`` and ``end`` bound the region of tf_crop_and_resize (0 to 1 is everything)."""

    index: int
    size: int
    output: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def same(self) -> bool:
        """Whether nothing happens."""
        return self.size == self.output and self.scale == 1.0 and (self.start, self.end) == (0.0, 1.0)

    def places(self, mode: str) -> Floats:
        """Where in the input each element of the output is."""
        bounded([self.output])
        y = np.arange(self.output, dtype=np.float64)
        length = self.scale * self.size
        match mode:
            case "half_pixel":
                return (y + 0.5) / self.scale - 0.5
            case "half_pixel_symmetric":
                return self.size / 2 * (1 - self.output / length) + (y + 0.5) / self.scale - 0.5
            case "pytorch_half_pixel":
                return (y + 0.5) / self.scale - 0.5 if length != 1 else np.full(self.output, -0.5)
            case "align_corners":
                return y * (self.size - 1) / (length - 1) if length != 1 else np.zeros(self.output)
            case "asymmetric":
                return y / self.scale
            case "tf_crop_and_resize":
                span = (self.end - self.start) * (self.size - 1)
                inner = y * span / (length - 1) if length != 1 else np.full(self.output, span / 2)
                return inner + self.start * (self.size - 1)
        raise UnsupportedError(f"the coordinate transformation {mode!r}", "one that the ONNX standard names")


def _linear(x: Floats) -> Floats:
    return np.clip(1.0 - np.abs(x), 0.0, 1.0)


def _cubic(a: float) -> Callable[[Floats], Floats]:
    """Keys' cubic convolution kernel (Cubic Convolution Interpolation for Digital Image Processing, 1981)."""

    def kernel(x: Floats) -> Floats:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    return kernel


def interpolation(
    axis: Axis, places: Floats, kernel: Callable[[Floats], Floats], reach: int, *, antialias: bool, exclude: bool
) -> Floats:
    """The matrix ``[output, size]`` of one axis; elements beyond the border are those on it, or left out."""
    narrow = min(axis.scale, 1.0) if antialias else 1.0
    around = np.arange(-math.ceil(reach / narrow) - 1, math.ceil(reach / narrow) + 2)
    neighbours = np.floor(places).astype(np.int64)[:, None] + around[None, :]
    weights = kernel((neighbours - places[:, None]) * narrow)
    if exclude:
        weights = np.where((neighbours < 0) | (neighbours >= axis.size), 0.0, weights)
    if exclude or antialias:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    bounded([axis.output, axis.size])
    matrix = np.zeros((axis.output, axis.size))
    rows = np.broadcast_to(np.arange(axis.output)[:, None], neighbours.shape)
    np.add.at(matrix, (rows, np.clip(neighbours, 0, axis.size - 1)), weights)
    return matrix


def _axes(context: NodeContext, crops: bool) -> list[Axis]:
    """What happens to each axis, from the node's scales or sizes."""
    shape = context.shape(0)
    order = [axis % len(shape) for axis in context.attr_ints("axes", range(len(shape)))]
    given = [index for index in (1, 2, 3) if context.has(index) and (index > 1 or crops)]
    values = dict(zip(given, context.require_all(given, "the region, scales or sizes"), strict=True))
    scales, sizes = (list(values[index].reshape(-1)) if index in values else [] for index in (2, 3))
    region = [0.0] * len(order) + [1.0] * len(order)
    if crops:
        region = [float(number) for number in values[1].reshape(-1)]
    if scales:
        factors = [float(scale) for scale in scales]
        outputs = [math.floor(shape[axis] * scale) for axis, scale in zip(order, factors, strict=True)]
    else:
        outputs = [int(size) for size in sizes]
        factors = [size / shape[axis] for axis, size in zip(order, outputs, strict=True)]
        policy = context.attr_str("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            common = min(factors) if policy == "not_larger" else max(factors)
            factors = [common] * len(order)
            outputs = [math.floor(common * shape[axis] + 0.5) for axis in order]
    numbers = zip(order, outputs, factors, region[: len(order)], region[len(order) :], strict=True)
    return [Axis(axis, shape[axis], output, factor, start, end) for axis, output, factor, start, end in numbers]


def _along(context: NodeContext, x: SSAValue, axis: int, matrix: Floats) -> SSAValue:
    """``matrix @ x`` along one axis."""
    rank = len(context.shape_of(x))
    order = [*(i for i in range(rank) if i != axis), axis]
    weight = context.param(context.derived(f"axis{axis}", matrix.astype(np.float32)))
    result = context.emit(nn.LinearOp(context.transpose(x, order), weight))
    return context.transpose(result, [order.index(i) for i in range(rank)])


def _resize(context: NodeContext) -> Converted:
    mode = context.attr_str("coordinate_transformation_mode", "half_pixel")
    return _resized(context, _axes(context, mode == "tf_crop_and_resize"), mode, "round_prefer_floor")


def _resized(context: NodeContext, axes: Sequence[Axis], mode: str, nearest: str) -> SSAValue:
    x = context.value(0)
    element = context.element_of(x)
    method = context.attr_str("mode", "nearest")
    a = context.attr_float("cubic_coeff_a", -0.75)
    if method != "nearest" and isinstance(element, IntegerType):
        x = context.cast(x, f32)
    for axis in (axis for axis in axes if not axis.same or mode == "tf_crop_and_resize"):
        places = axis.places(mode)
        if method == "nearest":
            rounded = _NEAREST[context.attr_str("nearest_mode", nearest)](places)
            indices = np.clip(rounded, 0, axis.size - 1).astype(np.int64)
            x = context.emit(nn.GatherOp(x, context.constant(indices, i32), axis.index))
        else:
            kernel, reach = (_linear, 1) if method == "linear" else (_cubic(a), 2)
            matrix = interpolation(
                axis, places, kernel, reach,
                antialias=bool(context.attr_int("antialias", 0)), exclude=bool(context.attr_int("exclude_outside", 0)),
            )  # fmt: skip
            x = _along(context, x, axis.index, matrix)
        if mode == "tf_crop_and_resize":
            x = _extrapolated(context, x, axis, places)
    return context.cast(x, element)


def _extrapolated(context: NodeContext, x: SSAValue, axis: Axis, places: Floats) -> SSAValue:
    """The extrapolation value where ``places`` are outside of the input."""
    outside = (places < 0) | (places > axis.size - 1)
    if not outside.any():
        return x
    shape = [1] * len(context.shape_of(x))
    shape[axis.index] = axis.output
    mask = context.constant(outside.reshape(shape), i1)
    return Expressions(context).select(mask, context.attr_float("extrapolation_value", 0.0), x)


def _upsample(context: NodeContext) -> Converted:
    """Resize as it was before opset 10."""
    shape = context.shape(0)
    given = context.require(1, "the scales").reshape(-1) if context.has(1) else context.attr_floats("scales")
    factors = [float(scale) for scale in given]
    sizes = enumerate(zip(shape, factors, strict=True))
    axes = [Axis(index, size, math.floor(size * factor), factor) for index, (size, factor) in sizes]
    return _resized(context, axes, "asymmetric", "floor")


TABLE: Final[Mapping[str, Converter]] = {"Resize": _resize, "Upsample": _upsample}
"""Converters by operator."""
