"""Functions that are several instructions: in f32 throughout, rounded to fp16 at most once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import pi
from typing import TypeAlias

from xdsl.ir import Operation

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.elementwise import elementwise, map_views, widened
from pimc.backends.lower.views import View, address_of, contiguous, fresh
from pimc.ir import nn

#: Instruction, result, operands: names of f32 vectors (``x`` is the operand, ``y`` the result), or a number.
Step: TypeAlias = tuple[str, str, *tuple[str | float, ...]]

_ASIN: tuple[Step, ...] = (  # atan(x / sqrt(1 - x^2)); x^2 is exact in f32, the quotient infinite at the ends
    ("vmul", "a", "x", "x"),
    ("vneg", "a", "a"),
    ("vadds", "a", "a", 1.0),
    ("vsqrt", "a", "a"),
    ("vdiv", "a", "x", "a"),
    ("vatan", "y", "a"),
)
#: Each function in steps that lose no digits near 0 and give the limits at infinity; steps with attributes of the
#: operator in them are made from it.
FUNCTIONS: Mapping[type[Operation], Sequence[Step] | Callable[..., Sequence[Step]]] = {
    nn.TanOp: (("vsin", "a", "x"), ("vcos", "b", "x"), ("vdiv", "y", "a", "b")),
    nn.AsinOp: _ASIN,
    nn.AcosOp: (*_ASIN, ("vneg", "y", "y"), ("vadds", "y", "y", pi / 2)),
    nn.SinhOp: (  # u / 2 + u / (2 (u + 1)) with u = exp(x) - 1
        ("vexpm1", "a", "x"),
        ("vadds", "b", "a", 1.0),
        ("vrecip", "b", "b"),
        ("vadds", "b", "b", 1.0),
        ("vmul", "y", "a", "b"),
        ("vmuls", "y", "y", 0.5),
    ),
    nn.CoshOp: (("vexp", "a", "x"), ("vrecip", "b", "a"), ("vadd", "y", "a", "b"), ("vmuls", "y", "y", 0.5)),
    nn.AsinhOp: (  # sign(x) log1p(|x| + |x| / (r + sqrt(r^2 + 1))) with r = 1 / |x|
        ("vabs", "a", "x"),
        ("vrecip", "b", "a"),
        ("vmul", "c", "b", "b"),
        ("vadds", "c", "c", 1.0),
        ("vsqrt", "c", "c"),
        ("vadd", "c", "c", "b"),
        ("vdiv", "c", "a", "c"),
        ("vadd", "c", "c", "a"),
        ("vlog1p", "c", "c"),
        ("vsign", "a", "x"),
        ("vmul", "y", "a", "c"),
    ),
    nn.AcoshOp: (  # log1p(t + sqrt(t) sqrt(t + 2)) with t = x - 1
        ("vadds", "a", "x", -1.0),
        ("vsqrt", "b", "a"),
        ("vadds", "c", "a", 2.0),
        ("vsqrt", "c", "c"),
        ("vmul", "c", "b", "c"),
        ("vadd", "c", "c", "a"),
        ("vlog1p", "y", "c"),
    ),
    nn.AtanhOp: (  # log1p(2 x / (1 - x)) / 2
        ("vneg", "a", "x"),
        ("vadds", "a", "a", 1.0),
        ("vadd", "b", "x", "x"),
        ("vdiv", "b", "b", "a"),
        ("vlog1p", "y", "b"),
        ("vmuls", "y", "y", 0.5),
    ),
}


def lower_function(ctx: LoweringContext, op: Operation) -> None:
    """A function of :data:`FUNCTIONS`."""
    found = FUNCTIONS[type(op)]
    steps = found(op) if callable(found) else found
    elementwise(ctx, op, lambda to, x: _steps(ctx, steps, to, x))


def _steps(ctx: LoweringContext, steps: Sequence[Step], to: View, x: View) -> None:
    core = ctx.core
    wide = {"x": contiguous(ctx, x) if x.itemsize == 4 else widened(ctx, x)}
    for _, result, *_ in steps:
        if result not in wide:
            wide[result] = fresh(ctx, f"function.{result}", to.shape, 4)
    places = {name: address_of(ctx, view) for name, view in wide.items()}
    count = core.const(to.elements)
    for name, result, *operands in steps:
        sources = [places[v] if isinstance(v, str) else ctx.f32(v) for v in operands]
        core.emit(f"{name}_f", places[result], *sources, count)
    map_views(ctx, "vcvt_h" if to.itemsize == 2 else "vmov_f", to, wide["y"])


#: Lowering of each operator of this module.
TABLE: Mapping[type[Operation], Callable[..., None]] = dict.fromkeys(FUNCTIONS, lower_function)
