"""Element-wise operators of any rank with numpy broadcasting: on fp16, on f32, on truth values (fp16 0 and 1), on i32.

:func:`map_views` runs one vector instruction over views.  What decoder models use stays with ``vector``: constants on
one side, operands that agree row by row, single instructions on whole tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import TypeAlias

from xdsl.dialects.builtin import IntegerType, TensorType, i1
from xdsl.ir import Operation, SSAValue

from pimc.backends.lower.context import INTEGER_BYTES, LoweringContext, element_bytes, is_wide, shape_of
from pimc.backends.lower.values import Scalar, Strip, Tensor
from pimc.backends.lower.vector import BINARY, POWERS, UNARY, lower_binary, lower_pow, lower_unary
from pimc.backends.lower.views import (
    Dim,
    View,
    address_of,
    coalesce,
    contiguous,
    copy_view,
    filled,
    fresh,
    on_runs,
    set_view,
    view_of,
)
from pimc.ir import nn
from pimc.ir.layout import shard_of

#: What makes a result: the view to write, and those of the operands (not yet broadcast).
Apply: TypeAlias = Callable[..., None]

#: Instructions, of fp16 or f32, for a second, and for a first operand that is one number along the rows.
SCALAR_FORMS: Mapping[str, tuple[str, str | None]] = {
    "vadd": ("vadds", "vadds"),
    "vsub": ("vsubs", None),
    "vmul": ("vmuls", "vmuls"),
    "vdiv": ("vdivs", None),
    "vmax": ("vmaxs", "vmaxs"),
    "vmin": ("vmins", "vmins"),
    "veq": ("veqs", "veqs"),
    "vlt": ("vlts", "vgts"),
    "vle": ("vles", "vges"),
}
#: Instruction of each operator of truth values, where it is one.
BOOLEAN: Mapping[type[Operation], str] = {
    nn.AddOp: "vmax_h",
    nn.MulOp: "vmul_h",
    nn.MaximumOp: "vmax_h",
    nn.MinimumOp: "vmul_h",
    nn.AndOp: "vmul_h",
    nn.OrOp: "vmax_h",
}
#: Of i32.
INTEGER: Mapping[type[Operation], str] = {
    nn.AddOp: "vadd_i",
    nn.SubOp: "vsub_i",
    nn.MulOp: "vmul_i",
    nn.DivOp: "vdiv_i",
    nn.MaximumOp: "vmax_i",
    nn.MinimumOp: "vmin_i",
    nn.AndOp: "vand_i",
    nn.OrOp: "vor_i",
    nn.XorOp: "vxor_i",
}
#: Predicate: instruction, whether the operands change places, whether the answer is turned round.
PREDICATES: Mapping[str, tuple[str, bool, bool]] = {
    "eq": ("veq", False, False),
    "ne": ("veq", False, True),
    "lt": ("vlt", False, False),
    "le": ("vle", False, False),
    "gt": ("vlt", True, False),
    "ge": ("vle", True, False),
}


# -- instructions on views --------------------------------------------------------------------------------------------


def map_views(ctx: LoweringContext, name: str, to: View, *operands: View) -> None:
    """``to = instruction(operands)`` element by element; operands are broadcast to ``to``."""
    if not to.elements:
        return
    views = [operand.broadcast(to.shape) for operand in operands]
    dims = coalesce(to.shape, [view.strides for view in (to, *views)])
    if dims and dims[-1].strides[0] == to.itemsize:
        name, views = _arranged(ctx, name, operands, views, dims[-1].strides[1:])
    _runs(ctx, name, [to, *views])


def map_scalar(ctx: LoweringContext, name: str, to: View, operand: View, number: float) -> None:
    """``to = instruction(operand, number)``; both views of one shape."""
    if to.elements:
        _runs(ctx, name, [to, operand if operand == to else contiguous(ctx, operand)], ctx.f32(number))


def _runs(ctx: LoweringContext, name: str, views: list[View], *numbers: SSAValue) -> None:
    """An instruction on the runs of the first view: all that are vectors have the same runs.

    ``numbers``: addresses of f32 that it takes as further operands.
    """
    to = views[0]
    dims = coalesce(to.shape, [view.strides for view in views])
    run = dims.pop() if dims and dims[-1].strides[0] == to.itemsize else Dim(1, ())
    dims = [Dim(dim.extent, (*dim.strides, *(0 for _ in numbers))) for dim in dims]
    on_runs(ctx, name, dims, [*(address_of(ctx, view) for view in views), *numbers], run.extent)


def _arranged(
    ctx: LoweringContext, name: str, operands: tuple[View, ...], views: list[View], steps: tuple[int, ...]
) -> tuple[str, list[View]]:
    """The operands as runs, or one as an f32 number for each run; ``steps``: their strides along the runs."""
    stem, _, kind = name.rpartition("_")
    right, left = SCALAR_FORMS.get(stem, (None, None)) if kind != "i" else (None, None)
    number: View | None = None
    if right and steps[1] == 0 != steps[0]:
        name, number, views, steps = f"{right}_{kind}", operands[1], views[:1], steps[:1]
    elif left and steps[0] == 0 != steps[1]:
        name, number, views, steps = f"{left}_{kind}", operands[0], views[1:], steps[1:]
    shape = views[0].shape
    views = [v if step == v.itemsize else contiguous(ctx, v) for v, step in zip(views, steps, strict=True)]
    if number is not None:
        views.append((number if kind == "f" else widened(ctx, number)).broadcast(shape))
    return name, views


def widened(ctx: LoweringContext, view: View) -> View:
    """fp16 numbers as f32."""
    wide = fresh(ctx, "wide", view.shape, 4)
    map_views(ctx, "vcvt_f", wide, view)
    return wide


def floats_of(ctx: LoweringContext, view: View) -> View:
    """Numbers as f32: fp16 or truth values by their size of two bytes, else i32."""
    if view.itemsize == 2:
        return widened(ctx, view)
    wide = fresh(ctx, "wide", view.shape, 4)
    map_views(ctx, "vitof", wide, view)
    return wide


def negate(ctx: LoweringContext, truth: View) -> None:
    """Truth values turned round in place."""
    map_scalar(ctx, "veqs_h", truth, truth, 0.0)


# -- operators --------------------------------------------------------------------------------------------------------


def is_integer(value: SSAValue) -> bool:
    """Whether a value holds 32-bit integers."""
    return (
        isinstance(value.type, TensorType)
        and isinstance(value.type.element_type, IntegerType)
        and not is_boolean(value)
    )


def is_boolean(value: SSAValue) -> bool:
    """Whether a value holds truth values."""
    return isinstance(value.type, TensorType) and value.type.element_type == i1


def kind_of(value: SSAValue) -> str:
    """The letter of the instructions that work on a value: of integers, of f32, of fp16 and truth values."""
    return "i" if is_integer(value) else "f" if is_wide(value) else "h"


def elementwise(ctx: LoweringContext, op: Operation, apply: Apply) -> None:
    """Lower ``op`` by ``apply``: on whole tensors, or strip by strip where they are cut alike over the cores."""
    result = op.results[0]
    if shard_of(result.type) is None:
        to = fresh(ctx, "vector", shape_of(result), element_bytes(result))
        if to.elements:
            apply(to, *(view_of(ctx, operand) for operand in op.operands))
        set_view(ctx, result, to)
        return
    cut = next(operand for operand in op.operands if shard_of(operand.type) is not None)
    tensor = ctx.like("vector", ctx.tensor(cut))
    for index, strip in enumerate(tensor.strips):
        apply(_view(strip), *(_piece(ctx, operand, index) for operand in op.operands))
    ctx.set(result, tensor)


def _piece(ctx: LoweringContext, value: SSAValue, index: int) -> View:
    """Strip ``index`` of a cut operand; the others are numbers."""
    if shard_of(value.type) is not None:
        return _view(ctx.tensor(value).strips[index])
    lowered = ctx.values.get(value)
    if not isinstance(lowered, Scalar):
        raise ctx.unsupported("an operand that is cut over the cores beside one that is not")
    return filled(ctx, (), lowered.value)


def _view(strip: Strip) -> View:
    return View(strip.buffer, (strip.rows, strip.width), (strip.pitch, 2), strip.offset)


def lower_any_binary(ctx: LoweringContext, op: Operation) -> None:
    """``dst = a op b`` by one instruction."""
    kind = op.operands[0]
    if kind_of(kind) == "h" and not is_boolean(kind) and type(op) in BINARY and _by_rows(ctx, op):
        lower_binary(ctx, op)
        return
    table = INTEGER if is_integer(kind) else BOOLEAN if is_boolean(kind) else BINARY
    name = table.get(type(op))
    if name is None:
        raise ctx.unsupported(
            "no vector instruction does this with " + ("truth values" if is_boolean(kind) else "fp16")
        )
    if is_wide(kind):
        name = _in_f32(name)
    elementwise(ctx, op, lambda to, a, b: map_views(ctx, name, to, a, b))


def _in_f32(name: str) -> str:
    """The instruction on f32 for one on fp16."""
    return name.removesuffix("_h") + "_f"


def _by_rows(ctx: LoweringContext, op: Operation) -> bool:
    """Whether ``vector`` does it: one constant number, or each operand has all rows or a single one."""
    numbers = [isinstance(ctx.values.get(operand), Scalar) for operand in op.operands]
    if any(numbers) or shard_of(op.results[0].type) is not None:
        return not all(numbers)
    shape = _without_ones(shape_of(op.results[0]))
    return 0 not in shape and all(
        _without_ones(shape_of(operand)) in (shape, shape[-1:]) and shape_of(operand)[-1:] == shape[-1:]
        for operand in op.operands
    )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its leading dimensions of 1."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def lower_xor(ctx: LoweringContext, op: nn.XorOp) -> None:
    """Exclusive or: of integers bitwise; truth values that differ."""
    if is_integer(op.lhs):
        lower_any_binary(ctx, op)
    else:
        elementwise(ctx, op, lambda to, a, b: _compare(ctx, "ne", "h", to, a, b))


def lower_shift(ctx: LoweringContext, op: nn.ShiftLeftOp | nn.ShiftRightOp) -> None:
    """Shift of integers; by what is not 0 .. 31, all bits go: 0 remains, of a right shift the sign."""

    def apply(to: View, x: View, amount: View) -> None:
        distance = filled(ctx, to.shape, 31, 4)
        inside, rest = fresh(ctx, "shift.inside", to.shape), fresh(ctx, "shift.rest", to.shape, 4)
        map_views(ctx, "vand_i", rest, amount, filled(ctx, to.shape, -32, 4))
        map_views(ctx, "veq_i", inside, rest, filled(ctx, to.shape, 0, 4))
        map_views(ctx, "vsel_f", distance, amount, inside)
        if isinstance(op, nn.ShiftRightOp):
            map_views(ctx, "vsra_i", to, x, distance)
        else:
            copy_view(ctx, filled(ctx, to.shape, 0, 4), to)
            map_views(ctx, "vsll_i", rest, x, distance)
            map_views(ctx, "vsel_f", to, rest, inside)

    if is_boolean(op.lhs):
        raise ctx.unsupported("a shift of truth values")
    elementwise(ctx, op, apply)


def lower_compare(ctx: LoweringContext, op: nn.CompareOp) -> None:
    """Comparison to truth values."""
    elementwise(ctx, op, lambda to, a, b: _compare(ctx, op.predicate.data, kind_of(op.lhs), to, a, b))


def _compare(ctx: LoweringContext, predicate: str, suffix: str, to: View, a: View, b: View) -> None:
    name, swapped, turned = PREDICATES[predicate]
    answer = fresh(ctx, "answer", to.shape, 4) if suffix == "f" else to
    map_views(ctx, f"{name}_{suffix}", answer, *((b, a) if swapped else (a, b)))
    if suffix == "f":
        map_views(ctx, "vcvt_h", to, answer)
    if turned:
        negate(ctx, to)


def lower_select(ctx: LoweringContext, op: nn.SelectOp) -> None:
    """``condition ? a : b``."""
    name = "vsel_h" if element_bytes(op.a) == 2 else "vsel_f"

    def apply(to: View, condition: View, a: View, b: View) -> None:
        copy_view(ctx, b.broadcast(to.shape), to)
        map_views(ctx, name, to, a, condition)

    elementwise(ctx, op, apply)


def lower_mod(ctx: LoweringContext, op: nn.ModOp) -> None:
    """Remainder with the sign of the dividend or of the divisor."""
    name = f"{'vrem' if op.fmod.value.data else 'vmod'}_{kind_of(op.lhs)}"
    elementwise(ctx, op, lambda to, a, b: map_views(ctx, name, to, a, b))


def lower_any_pow(ctx: LoweringContext, op: nn.PowOp) -> None:
    """Power: by products and roots for the constants that models use, else by the power function in f32."""
    base, exponent = op.lhs, op.rhs
    constant = ctx.values.get(exponent)
    if isinstance(constant, Scalar) and constant.value in POWERS and isinstance(ctx.local(base), Tensor):
        lower_pow(ctx, op)
        return
    if is_integer(base) and is_integer(exponent):
        elementwise(ctx, op, lambda to, a, b: _integer_power(ctx, to, a, b))
        return

    if is_wide(base):
        elementwise(ctx, op, lambda to, a, b: map_views(ctx, "vpow_f", to, a, b))
        return

    def apply(to: View, a: View, b: View) -> None:
        wide = fresh(ctx, "power", to.shape, 4)
        map_views(ctx, "vpow_f", wide, floats_of(ctx, a), floats_of(ctx, b))
        map_views(ctx, "vftoi" if is_integer(base) else "vcvt_h", to, wide)

    elementwise(ctx, op, apply)


def _integer_power(ctx: LoweringContext, to: View, a: View, b: View) -> None:
    """``a ^ b`` modulo 2^32 for b >= 0: squares of a, multiplied where b has the bit."""
    square, rest = (fresh(ctx, f"power.{name}", to.shape, 4) for name in ("square", "exponent"))
    odd, product = fresh(ctx, "power.odd", to.shape), fresh(ctx, "power.product", to.shape, 4)
    bit = fresh(ctx, "power.bit", to.shape, 4)
    copy_view(ctx, a.broadcast(to.shape), square)
    copy_view(ctx, b.broadcast(to.shape), rest)
    one = filled(ctx, to.shape, 1, 4)
    copy_view(ctx, one, to)
    with ctx.core.loop(0, 31):
        map_views(ctx, "vand_i", bit, rest, one)
        map_views(ctx, "veq_i", odd, bit, one)
        map_views(ctx, "vmul_i", product, to, square)
        map_views(ctx, "vsel_f", to, product, odd)
        map_views(ctx, "vmul_i", square, square, square)
        map_views(ctx, "vsra_i", rest, rest, one)


def lower_cast(ctx: LoweringContext, op: nn.CastOp) -> None:
    """Conversion between fp16, f32, i32 and truth values; a truth value is the number 0 or 1 already."""
    source, result = op.x, op.result
    if is_boolean(result) and not is_boolean(source):
        elementwise(ctx, op, lambda to, x: _to_boolean(ctx, to, _wide(ctx, source, x)))
    elif kind_of(source) == kind_of(result):
        ctx.rename(result, source)
    else:
        name = {"i": "vftoi", "f": "vmov_f", "h": "vcvt_h"}[kind_of(result)]
        elementwise(ctx, op, lambda to, x: map_views(ctx, name, to, _wide(ctx, source, x)))


def _wide(ctx: LoweringContext, value: SSAValue, view: View) -> View:
    """The numbers of a value as f32; its own where it holds those."""
    return view if is_wide(value) else floats_of(ctx, view)


def _to_boolean(ctx: LoweringContext, to: View, x: View) -> None:
    """Whether x is not 0."""
    equal = fresh(ctx, "zero", to.shape, 4)
    map_scalar(ctx, "veqs_f", equal, x, 0.0)
    map_views(ctx, "vcvt_h", to, equal)
    negate(ctx, to)


def lower_is_nan(ctx: LoweringContext, op: nn.IsNanOp) -> None:
    """x differs from itself."""
    elementwise(ctx, op, lambda to, x: _compare(ctx, "ne", kind_of(op.x), to, x, x))


def lower_is_inf(ctx: LoweringContext, op: nn.IsInfOp) -> None:
    """x, or its magnitude, is infinity."""
    positive, negative, kind = bool(op.positive.value.data), bool(op.negative.value.data), kind_of(op.x)

    def apply(to: View, x: View) -> None:
        if not positive and not negative:
            copy_view(ctx, filled(ctx, to.shape, 0.0), to)
            return
        answer = fresh(ctx, "answer", to.shape, 4) if kind == "f" else to
        if positive and negative:
            map_views(ctx, f"vabs_{kind}", answer, x)
            x = answer
        map_scalar(ctx, f"veqs_{kind}", answer, x, inf if positive else -inf)
        if kind == "f":
            map_views(ctx, "vcvt_h", to, answer)

    elementwise(ctx, op, apply)


def lower_not(ctx: LoweringContext, op: Operation) -> None:
    """Truth values turned round; every bit of an integer."""

    def apply(to: View, x: View) -> None:
        if to.itemsize == INTEGER_BYTES:
            map_views(ctx, "vxor_i", to, x, filled(ctx, to.shape, -1, 4))
        else:
            map_scalar(ctx, "veqs_h", to, x, 0.0)

    elementwise(ctx, op, apply)


def lower_any_unary(ctx: LoweringContext, op: Operation) -> None:
    """``dst = f(a)``: one instruction on fp16 or f32; sign, magnitude and negation of integers."""
    if not is_integer(op.operands[0]):
        if is_wide(op.operands[0]):
            elementwise(ctx, op, lambda to, x: map_views(ctx, _in_f32(UNARY[type(op)]), to, x))
        elif isinstance(ctx.values.get(op.operands[0]), Scalar):
            elementwise(ctx, op, lambda to, x: map_views(ctx, UNARY[type(op)], to, x))
        else:
            lower_unary(ctx, op)
        return

    def apply(to: View, x: View) -> None:
        if isinstance(op, nn.SignOp):
            map_views(ctx, "vmax_i", to, x, filled(ctx, to.shape, -1, 4))
            map_views(ctx, "vmin_i", to, to, filled(ctx, to.shape, 1, 4))
            return
        map_views(ctx, "vsub_i", to, filled(ctx, to.shape, 0, 4), x)
        if isinstance(op, nn.AbsOp):
            map_views(ctx, "vmax_i", to, to, x)

    elementwise(ctx, op, apply)


#: Lowering of each operator of this module.
TABLE: Mapping[type[Operation], Callable[..., None]] = {
    **dict.fromkeys((*BINARY, *INTEGER), lower_any_binary),
    **dict.fromkeys(UNARY, lower_any_unary),
    nn.XorOp: lower_xor,
    nn.ShiftLeftOp: lower_shift,
    nn.ShiftRightOp: lower_shift,
    nn.CompareOp: lower_compare,
    nn.SelectOp: lower_select,
    nn.ModOp: lower_mod,
    nn.PowOp: lower_any_pow,
    nn.CastOp: lower_cast,
    nn.IsNanOp: lower_is_nan,
    nn.IsInfOp: lower_is_inf,
    nn.NotOp: lower_not,
    nn.BitNotOp: lower_not,
}
