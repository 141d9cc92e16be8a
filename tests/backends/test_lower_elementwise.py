"""Element-wise lowerings of any rank and type: the simulated program against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import compare, floats, ids, number, weight
from xdsl.dialects.builtin import f32, i1, i64
from xdsl.ir import SSAValue

from pimc.ir import nn

BINARY = [nn.AddOp, nn.SubOp, nn.MulOp, nn.DivOp, nn.MaximumOp, nn.MinimumOp]


def test_binary_with_broadcasting() -> None:
    """Shapes beside each other in the list that broadcast, both ways round."""
    arrays = [floats(*shape) + 3 for shape in ((2, 1, 3), (4, 1), (5,), (), (1, 5), (2, 4, 1), (2, 4, 5))]
    names = [(1, 2), (2, 1), (0, 1), (3, 2), (4, 5), (5, 6), (6, 5), (6, 3), (2, 6)]

    def build(*x: SSAValue) -> list[SSAValue]:
        return (
            [BINARY[k % 6](x[i], x[j]).result for k, (i, j) in enumerate(names)]
            + [op(x[5], x[4]).result for op in BINARY]
            + [op(x[6], x[5]).result for op in BINARY]
        )

    compare(arrays, build)


def test_binary_with_constants() -> None:
    def build(x: SSAValue) -> list[SSAValue]:
        c = [number(value) for value in (0.5, 3.0)]
        return [
            nn.SubOp(c[0], x).result, nn.DivOp(c[1], x).result, nn.AddOp(x, c[0]).result, nn.MulOp(c[0], c[1]).result,
            nn.CompareOp(x, c[1], "lt").result, nn.CompareOp(c[1], x, "lt").result, nn.TanhOp(c[0]).result,
        ]  # fmt: skip

    compare([floats(3, 7) + 4], build)


@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_compare_and_select(kind: str) -> None:
    a, b = (ids(-3, 3, 3, 1, 5), ids(-3, 3, 4, 5)) if kind == "integers" else (floats(3, 1, 5), floats(4, 5))
    if kind == "floats":
        b[:, 1] = a[0, 0, 1]

    def build(x: SSAValue, y: SSAValue) -> list[SSAValue]:
        answers = [nn.CompareOp(x, y, predicate).result for predicate in ("eq", "ne", "lt", "le", "gt", "ge")]
        column = nn.SliceOp(answers[2], [0, 0, 0], [3, 4, 1]).result
        selected = [nn.SelectOp(answers[1], y, y).result, nn.SelectOp(column, y, x).result]
        return [*answers, *selected]

    compare([a, b], build)


def test_nan_and_infinity() -> None:
    x = np.array([1, np.nan, np.inf, -np.inf, 0], np.float32)

    def build(v: SSAValue) -> list[SSAValue]:
        return [
            nn.IsNanOp(v).result, nn.IsInfOp(v).result, nn.IsInfOp(v, True, False).result,
            nn.IsInfOp(v, False, True).result, nn.IsInfOp(v, False, False).result, nn.CompareOp(v, v, "eq").result,
            nn.CompareOp(v, v, "ne").result, nn.CompareOp(v, v, "ge").result,
        ]  # fmt: skip

    compare([x], build)


def test_truth_values() -> None:
    a, b = ids(0, 2, 3, 4).astype(bool), ids(0, 2, 4).astype(bool)

    def build(x: SSAValue, y: SSAValue) -> list[SSAValue]:
        two = [op(x, y).result for op in (nn.AndOp, nn.OrOp, nn.XorOp)]
        return [*two, nn.NotOp(x).result, nn.CompareOp(x, y, "eq").result, nn.SelectOp(x, y, two[2]).result]

    compare([a, b], build)


def test_integers() -> None:
    a, b = ids(-20, 20, 3, 4), ids(1, 9, 4)

    def build(x: SSAValue, y: SSAValue) -> list[SSAValue]:
        two = [
            op(x, y).result for op in (*BINARY, nn.AndOp, nn.OrOp, nn.XorOp, nn.ShiftLeftOp, nn.ShiftRightOp, nn.ModOp)
        ]
        one = [op(x).result for op in (nn.NegOp, nn.AbsOp, nn.SignOp, nn.BitNotOp)]
        return [*two, nn.ModOp(x, y, True).result, *one]

    compare([a, b], build)


def test_shifts_of_all_bits() -> None:
    x, by = np.array([5, -5, 1 << 20, -1]), np.array([[64, 64, -1, -9], [0, 1, 2, 100], [5, 3, 10, 31]])
    compare([x, by], lambda a, b: [op(a, b).result for op in (nn.ShiftLeftOp, nn.ShiftRightOp)])


def test_casts() -> None:
    x = np.array([[-2.5, 0.0, 3.75], [0.25, 100.0, -0.0]], np.float32)

    def build(v: SSAValue, i: SSAValue, t: SSAValue) -> list[SSAValue]:
        return [
            nn.CastOp(v, i64).result, nn.CastOp(v, i1).result, nn.CastOp(i, f32).result, nn.CastOp(i, i1).result,
            nn.CastOp(t, f32).result, nn.CastOp(t, i64).result,
        ]  # fmt: skip

    compare([x, np.array([0, -7, 2**20, 1]) // 1 % 40000, np.array([True, False])], build)


def test_powers_and_remainders() -> None:
    a, b = np.abs(floats(2, 3, 4)) + 0.25, floats(3, 1)

    def build(x: SSAValue, y: SSAValue, i: SSAValue, j: SSAValue) -> list[SSAValue]:
        floating = [nn.PowOp(x, y).result, nn.PowOp(x, j).result, nn.ModOp(x, y, True).result]
        constants = [nn.PowOp(x, number(value)).result for value in (2.0, 0.5, -1.5)]
        return [*floating, *constants, nn.PowOp(i, j).result, nn.ModOp(y, x, True).result]

    compare([a, b, ids(-9, 9, 2, 3, 4), ids(0, 5, 4)], build, tolerance=4e-3)


#: Operator, arguments to it (in fp16 already).
FUNCTIONS = {
    nn.SinOp: (-4, 4), nn.CosOp: (-4, 4), nn.TanOp: (-1.4, 1.4), nn.AsinOp: (-1, 1), nn.AcosOp: (-1, 1),
    nn.AtanOp: (-30, 30), nn.SinhOp: (-9, 9), nn.CoshOp: (-9, 9), nn.AsinhOp: (-500, 500), nn.AcoshOp: (1, 500),
    nn.AtanhOp: (-0.999, 0.999), nn.FloorOp: (-4, 4), nn.CeilOp: (-4, 4), nn.RoundOp: (-4, 4), nn.SignOp: (-4, 4),
}  # fmt: skip


def test_functions() -> None:
    arrays = []
    for low, high in FUNCTIONS.values():
        x = np.linspace(low, high, 33)
        x[1:4] = np.clip([0.0, 1e-3, -3e-5], low, high)  # relative accuracy near 0
        x[4:6] = np.clip([0.5, 1.5], low, high)
        arrays.append(x.astype(np.float16).astype(np.float32))
    result = compare(arrays, lambda *v: [op(x).result for op, x in zip(FUNCTIONS, v, strict=True)])
    numpy = {nn.AsinhOp: np.arcsinh, nn.SinhOp: np.sinh, nn.AtanhOp: np.arctanh, nn.TanOp: np.tan}
    for (operator, got), x in zip(zip(FUNCTIONS, result.outputs.values(), strict=True), arrays, strict=True):
        if operator in numpy:
            np.testing.assert_allclose(got[1:4], numpy[operator](x[1:4]), rtol=2e-3)


def test_functions_at_the_limits() -> None:
    x = np.array([np.inf, -np.inf, np.nan, -2.0, 1.0, -1.0], np.float32)
    operators = [nn.SinhOp, nn.CoshOp, nn.AsinhOp, nn.AcoshOp, nn.AtanhOp, nn.AsinOp, nn.AcosOp, nn.AtanOp]
    with np.errstate(all="ignore"):
        compare([x], lambda v: [op(v).result for op in operators])


def test_cut_operands() -> None:
    """Behind a linear layer the features are cut over the cores: comparison and selection work on the parts."""
    weights = {"w": floats(96, 64) / 8, "u": floats(96, 64) / 8}
    x = floats(1, 3, 64)

    def build(v: SSAValue) -> list[SSAValue]:
        a, b = (nn.LinearOp(v, weight(name, weights[name]), None).result for name in ("w", "u"))
        larger = nn.SelectOp(nn.CompareOp(a, b, "gt").result, a, b).result
        return [nn.AddOp(larger, nn.AsinhOp(b).result).result]

    compare([x], build, weights, tolerance=5e-3)
