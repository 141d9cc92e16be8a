"""Inputs and outputs of an entry: buffers that the host writes before a run and reads behind it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType

from xdsl.dialects import func
from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, element_bytes, rows_of, shape_of, whole_shape_of, widths_of
from pimc.backends.lower.parts import Part, clear_padding, fresh_parts, own_indices, parts_of, set_parts
from pimc.backends.lower.values import Buffer, Integers, Scalar, Strip, Tensor
from pimc.ir.input_ranges import input_ranges
from pimc.ir.layout import layout_of, shard_of
from pimc.ir.signature import input_names, output_names
from pimc.ports import identifiers


def lower_inputs(
    ctx: LoweringContext, function: func.FuncOp, functions: Mapping[str, func.FuncOp] = MappingProxyType({})
) -> None:
    """A buffer on every core for each argument; the host writes them, so none shares memory with another."""
    names = identifiers(input_names(function))
    buffers: list[Buffer] = []
    ranges = input_ranges(function, functions)
    for name, argument, allowed in zip(names, function.body.block.args, ranges, strict=True):
        shape, size = shape_of(argument), element_bytes(argument)
        if layout_of(argument.type) is not None:
            buffers += _cut_input(ctx, name, argument)
            continue
        buffer = ctx.alloc(f"input.{name}", prod(shape) * size)
        buffers.append(buffer)
        if size == 4:
            ctx.core.port(buffer.value, name, "input", "i32", shape, range=allowed)
            ctx.set(argument, Integers(buffer, prod(shape)))
        else:
            ctx.core.port(buffer.value, name, "input", "f16", shape)
            (width,) = widths_of(argument)
            ctx.set(argument, Tensor((Strip(buffer, rows_of(argument), width, width * 2),)))
    for buffer in buffers:
        ctx.core.keep(buffer.value)


def _cut_input(ctx: LoweringContext, name: str, argument: SSAValue) -> list[Buffer]:
    """Room for a core's part of an input, which the host writes; the rest is zeros."""
    parts = fresh_parts(ctx, argument, f"input.{name}")
    for part in parts:
        _part_port(ctx, name, "input", argument, part)
        clear_padding(ctx, part, whole_shape_of(argument))
    set_parts(ctx, argument, parts)
    return list({part.view.buffer: None for part in parts})


def lower_outputs(ctx: LoweringContext, function: func.FuncOp, returned: func.ReturnOp) -> None:
    """Where the host finds each result: the pieces of a cut one on their cores, a whole one on the first core."""
    ctx.at(returned)
    for name, value in zip(identifiers(output_names(function)), returned.arguments, strict=True):
        if layout_of(value.type) is None:
            _whole_output(ctx, name, value)
        elif shard_of(value.type) is not None:
            _cut_output(ctx, name, value)
        else:
            _rows_output(ctx, name, value)


def _whole_output(ctx: LoweringContext, name: str, value: SSAValue) -> None:
    shape = shape_of(value)
    first_core = [prod(shape)] + [0] * (ctx.cores - 1)
    lowered = ctx.local(value)
    if isinstance(lowered, Integers):
        ctx.core.port(lowered.buffer.value, name, "output", "i32", shape, count=first_core)
        return
    if isinstance(lowered, Scalar):
        lowered = _number(ctx, lowered)
        ctx.set(value, lowered)
    strip = ctx.tensor(value).whole
    if not strip.contiguous:
        raise ctx.unsupported("an output must be contiguous")
    ctx.core.port(strip.buffer.value, name, "output", "f16", shape, start=strip.offset, count=first_core)


def _number(ctx: LoweringContext, scalar: Scalar) -> Tensor:
    """A constant number in memory."""
    strip = ctx.strip("number", 1, 1)
    ctx.core.vfill_h(ctx.address(strip), ctx.address(strip), ctx.f32(scalar.value), ctx.core.const(1))
    return Tensor((strip,))


def _cut_output(ctx: LoweringContext, name: str, value: SSAValue) -> None:
    """Each core has its features of every row."""
    shape, shard = shape_of(value), shard_of(value.type)
    assert shard is not None  # the caller's
    for index, strip in enumerate(ctx.tensor(value).strips):
        starts, counts = own_indices(shard, index, shape[-1], ctx.cores)
        for row in range(strip.rows):
            ctx.core.port(
                strip.buffer.value,
                name,
                "output",
                "f16",
                shape,
                start=strip.offset + row * strip.pitch,
                offset=[row * shape[-1] + start for start in starts],
                count=counts,
            )


def _rows_output(ctx: LoweringContext, name: str, value: SSAValue) -> None:
    """Each core has its part of a leading dimension."""
    for part in parts_of(ctx, value):
        _part_port(ctx, name, "output", value, part)


def _part_port(ctx: LoweringContext, name: str, direction: str, value: SSAValue, part: Part) -> None:
    """The host's place for a core's part of a leading dimension: a run of elements for each index before it."""
    shape, dim, view = whole_shape_of(value), part.cut.dim, part.view
    first, count = part.cut.own(shape[dim], ctx.cores)
    inner = prod(shape[dim + 1 :])
    for outer in range(prod(shape[:dim])):
        ctx.core.port(
            view.buffer.value,
            name,
            direction,
            "f16" if view.itemsize == 2 else "i32",
            shape,
            start=view.offset + outer * view.shape[dim] * inner * view.itemsize,
            offset=[(outer * shape[dim] + at) * inner for at in first],
            count=[number * inner for number in count],
        )
