"""Rules: work that is done element by element."""

from __future__ import annotations

from dataclasses import replace

from xdsl.dialects.builtin import f16, f32

from pimc.ir import nn
from random_graphs.case import Value
from random_graphs.drawing import ELEMENTS, Drawing, Rule, constant

UNARY = (
    nn.TanhOp, nn.SigmoidOp, nn.SinOp, nn.CosOp, nn.SiluOp, nn.GeluOp, nn.ErfOp, nn.AtanOp, nn.AsinhOp,
)  # fmt: skip
#: On floats that no rounding has touched: the next would jump.  The first four keep floats exact.
EXACT_UNARY = (nn.AbsOp, nn.NegOp, nn.ReluOp, nn.SignOp, nn.FloorOp, nn.CeilOp, nn.RoundOp)
CONTINUOUS = (nn.AbsOp, nn.NegOp, nn.ReluOp)
#: Functions with a domain of their own, and the least and greatest operand given to them.
BOUNDED: tuple[tuple[type[nn.UnaryOp], float, float], ...] = (
    (nn.ExpOp, -4.0, 3.0), (nn.LogOp, 0.25, 8.0), (nn.SqrtOp, 0.25, 8.0), (nn.RsqrtOp, 0.25, 8.0),
    (nn.RecipOp, 0.25, 8.0), (nn.SinhOp, -3.0, 3.0), (nn.CoshOp, -3.0, 3.0), (nn.TanOp, -1.0, 1.0),
    (nn.AsinOp, -0.75, 0.75), (nn.AcosOp, -0.75, 0.75), (nn.AcoshOp, 1.25, 8.0), (nn.AtanhOp, -0.75, 0.75),
)  # fmt: skip
BINARY = (nn.AddOp, nn.SubOp, nn.MulOp, nn.MaximumOp, nn.MinimumOp)
EXTREMES = (nn.MaximumOp, nn.MinimumOp)
BITWISE = (nn.AndOp, nn.OrOp, nn.XorOp)
PREDICATES = ("eq", "ne", "lt", "le", "gt", "ge")


def unary(d: Drawing) -> None:
    x = d.floats()
    value = d.value(x)
    op = d.random.choice(UNARY + (EXACT_UNARY if value.exact else CONTINUOUS))
    d.op(op.name, replace(value, exact=value.exact and op in EXACT_UNARY), [x], lambda v: op(v).result)


def bounded(d: Drawing) -> None:
    x = d.floats()
    op, low, high = d.random.choice(BOUNDED)
    shape = d.value(x).shape
    inside = d.op(
        "clamp", Value(shape), [x],
        lambda v: nn.MinimumOp(nn.MaximumOp(v, constant(low)), constant(high)).result,
    )  # fmt: skip
    d.op(op.name, Value(shape), [inside], lambda v: op(v).result)


def power(d: Drawing) -> None:
    x, exponent = d.floats(), d.random.choice((0.5, 2.0, 3.0, -1.0, 1.5))
    d.op(
        f"nn.pow {exponent}", Value(d.value(x).shape), [x],
        lambda v: nn.PowOp(nn.AddOp(nn.TanhOp(v).result, constant(1.5)).result, constant(exponent)).result,
    )  # fmt: skip


def binary(d: Drawing) -> None:
    x = d.floats()
    other, op = d.like(x), d.random.choice(BINARY)
    operands = [x, other] if d.random.random() < 0.5 else [other, x]
    exact = op in EXTREMES and d.value(x).exact and d.value(other).exact
    d.op(op.name, Value(d.value(x).shape, exact=exact), operands, lambda a, b: op(a, b).result)


def quotient(d: Drawing) -> None:
    x = d.floats()
    divisor = d.source(d.value(x).shape)
    d.op(
        "nn.div", Value(d.value(x).shape), [x, divisor],
        lambda a, b: nn.DivOp(a, nn.AddOp(nn.AbsOp(b).result, constant(0.5)).result).result,
    )  # fmt: skip


def number(d: Drawing) -> None:
    x = d.floats()
    factor, op = d.random.choice((0.5, 2.0, -1.0, 0.25)), d.random.choice((nn.AddOp, nn.MulOp, nn.DivOp))
    d.op(f"{op.name} {factor}", Value(d.value(x).shape), [x], lambda v: op(v, constant(factor)).result)


def integers(d: Drawing) -> None:
    x = d.of_kind("i")
    shape, other, op = d.value(x).shape, d.like(x), d.random.choice(BINARY + BITWISE)
    made = d.op(op.name, Value(shape, "i", True), [x, other], lambda a, b: op(a, b).result)
    if d.random.random() < 0.5:
        d.op("nn.cast", Value(shape), [made], lambda v: nn.CastOp(v, f32).result)


def division(d: Drawing) -> None:
    """Quotients, remainders and shifts of integers."""
    x = d.of_kind("i")
    shape = d.value(x).shape
    divisor = d.given(d.numbers().integers(1, 6, shape))
    make, name = d.random.choice(
        (
            (lambda a, b: nn.DivOp(a, b).result, "nn.div"),
            (lambda a, b: nn.ModOp(a, b).result, "nn.mod"),
            (lambda a, b: nn.ModOp(a, b, fmod=True).result, "nn.mod fmod"),
            (lambda a, b: nn.ShiftRightOp(a, b).result, "nn.shift_right"),
            (lambda a, b: nn.ShiftLeftOp(a, b).result, "nn.shift_left"),
        )
    )
    d.op(name, Value(shape, "i", True), [x, divisor], make)


def truth(d: Drawing) -> None:
    """Truth values: comparisons of exact numbers, questions, and logic."""
    choice = d.random.randrange(4)
    if choice == 0:
        x, op = d.of_kind("b"), d.random.choice(BITWISE)
        d.op(op.name, d.value(x), [x, d.like(x)], lambda a, b: op(a, b).result)
    elif choice == 1:
        x = d.of_kind("b")
        d.op("nn.not", d.value(x), [x], lambda v: nn.NotOp(v).result)
    elif choice == 2:
        x, test = d.floats(), d.random.choice((nn.IsNanOp, nn.IsInfOp))
        d.op(test.name, Value(d.value(x).shape, "b", True), [x], lambda v: test(v).result)
    else:
        x, predicate = d.of_kind(d.random.choice("fi")), d.random.choice(PREDICATES)
        value = Value(d.value(x).shape, "b", True)
        other = d.source(d.value(x).shape, d.value(x).kind)
        d.op("nn.compare", value, [x, other], lambda a, b: nn.CompareOp(a, b, predicate).result)


def select(d: Drawing) -> None:
    x = d.anything()
    value = d.value(x)
    condition = d.pick(lambda found: found.kind == "b" and found.shape == value.shape)
    if condition is None:
        condition = d.source(value.shape, "b")
    d.op("nn.select", value, [condition, x, d.like(x)], lambda c, a, b: nn.SelectOp(c, a, b).result)


def cast(d: Drawing) -> None:
    x, to = d.exact(), d.random.choice("fi")
    d.op("nn.cast", Value(d.value(x).shape, to, True), [x], lambda v: nn.CastOp(v, ELEMENTS[to]).result)


def half(d: Drawing) -> None:
    """Some work in f16 between work in f32."""
    x = d.floats()
    value = d.value(x)
    x = d.op("nn.cast f16", replace(value, kind="h"), [x], lambda v: nn.CastOp(v, f16).result)
    for _ in range(d.random.randrange(1, 3)):
        op = d.random.choice(UNARY + CONTINUOUS)
        x = d.op(op.name, replace(value, kind="h", exact=False), [x], lambda v, op=op: op(v).result)
    d.op("nn.cast f32", replace(value, exact=False), [x], lambda v: nn.CastOp(v, f32).result)


RULES: dict[Rule, int] = {
    unary: 5,
    bounded: 4,
    power: 1,
    binary: 5,
    quotient: 1,
    number: 2,
    integers: 2,
    division: 2,
    truth: 3,
    select: 2,
    cast: 1,
    half: 2,
}
"""Rules and how often they are drawn."""
