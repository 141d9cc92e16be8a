"""Lowerings that move elements, reduce axes or run along them: the simulated program against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import compare, floats, ids
from xdsl.dialects.builtin import TensorType, f32, i64
from xdsl.ir import SSAValue

from pimc.ir import nn

REDUCTIONS = [nn.ReduceSumOp, nn.ReduceMaxOp, nn.ReduceMinOp, nn.ReduceProdOp]


@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_moves(kind: str) -> None:
    x = floats(2, 3, 4, 5) if kind == "floats" else ids(-(10**6), 10**6, 2, 3, 4, 5)

    def build(v: SSAValue) -> list[SSAValue]:
        turned = [nn.TransposeOp(v, order).result for order in ((0, 2, 1, 3), (3, 2, 1, 0), (1, 0, 2, 3), (0, 1, 3, 2))]
        parts = [
            nn.SliceOp(v, [0, 1, 0, 1], [2, 3, 4, 5], [1, 1, 2, 3]).result,
            nn.SliceOp(v, [1, 2, 3, 4], [-1, -1, 0, 0], [-1, -2, -1, -3]).result,
            nn.SliceOp(v, [1, 1, 0, 0], [2, 2, 4, 5]).result,
            nn.SliceOp(v, [0, 0, 0, 2], [2, 3, 4, 2]).result,
        ]
        shapes = [nn.ReshapeOp(v, (6, 20)).result, nn.ReshapeOp(turned[1], (120,)).result]
        column = nn.SliceOp(v, [0, 0, 0, 1], [2, 1, 4, 2]).result
        wide = [nn.BroadcastToOp(column, (3, 2, 2, 4, 3)).result, nn.BroadcastToOp(v, (2, 2, 3, 4, 5)).result]
        joined = [nn.ConcatOp([turned[2], turned[2]], 0).result, nn.ConcatOp([v, parts[0], v][::2], -1).result]
        return [*turned, *parts, *shapes, *wide, *joined]

    compare([x], build)


def test_small_and_empty() -> None:
    def build(a: SSAValue, b: SSAValue, c: SSAValue) -> list[SSAValue]:
        return [
            nn.ReshapeOp(a, (1, 1)).result,
            nn.BroadcastToOp(a, (2, 3)).result,
            nn.ReshapeOp(b, ()).result,
            nn.ConcatOp([b, b, b], 0).result,
            nn.ConcatOp([c, nn.SliceOp(c, [0, 0], [0, 4], [1, 1]).result], 0).result,
            nn.ReduceSumOp(nn.SliceOp(c, [0, 2], [3, 2]).result, [1]).result,
            nn.ReduceMaxOp(a, []).result,
        ]

    compare([floats(), floats(1), floats(3, 4)], build)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode: str) -> None:
    def build(a: SSAValue, b: SSAValue) -> list[SSAValue]:
        return [
            nn.PadOp(a, [1, 0, 2], [2, 3, 1], mode, 0.5).result,
            nn.PadOp(b, [4, 0], [7, 1], mode, 3.0).result,
        ]

    compare([floats(2, 3, 4), ids(-9, 9, 3, 2)], build)


def test_positions_as_numbers() -> None:
    def build(first: SSAValue) -> list[SSAValue]:
        positions = nn.PositionsOp(first, 6).result
        return [nn.AddOp(positions, positions).result, nn.ReshapeOp(positions, (2, 3)).result]

    compare([np.array([40], np.int32)], build)


def test_iota() -> None:
    def build(a: SSAValue) -> list[SSAValue]:
        counts = nn.IotaOp(TensorType(i64, (3, 70, 2)), 1).result
        half = nn.IotaOp(TensorType(f32, (2, 5)), -1).result
        return [counts, nn.AddOp(half, a).result]

    compare([floats(5)], build)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axes", [(2,), (0,), (0, 2), (1, 3), (0, 1, 2, 3), (-1, -2)])
def test_reductions(axes: tuple[int, ...], keep: bool) -> None:
    def build(a: SSAValue, i: SSAValue) -> list[SSAValue]:
        floating = [op(a, axes, keep).result for op in (*REDUCTIONS, nn.ReduceMeanOp)]
        return [*floating, *(op(i, axes, keep).result for op in REDUCTIONS[:3])]

    compare([floats(2, 3, 4, 5) / 2 + 1, ids(-5, 5, 2, 3, 4, 5)], build, tolerance=4e-3)


def test_any_and_all() -> None:
    x = ids(0, 2, 3, 4).astype(bool)
    operators = (nn.ReduceMaxOp, nn.ReduceMinOp, nn.ReduceProdOp)
    compare([x], lambda v: [op(v, [1]).result for op in operators])
    compare([x[:, :0]], lambda v: [op(v, [1]).result for op in operators])


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax(axis: int) -> None:
    compare([floats(3, 4, 5)], lambda v: [nn.SoftmaxOp(v, axis).result])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_running_totals(exclusive: bool, reverse: bool) -> None:
    def build(a: SSAValue, i: SSAValue, line: SSAValue) -> list[SSAValue]:
        form = (exclusive, reverse)
        sums = [nn.CumSumOp(a, axis, *form).result for axis in (0, 1, -1)]
        return [
            *sums,
            nn.CumProdOp(a, 1, *form).result,
            nn.CumSumOp(i, 1, *form).result,
            nn.CumProdOp(i, 0, *form).result,
            nn.CumSumOp(line, 0, *form).result,
        ]

    compare([floats(2, 3, 4), ids(-5, 5, 3, 4), floats(9)], build, tolerance=4e-3)


def test_norms_of_any_rank() -> None:
    x = floats(2, 3, 2, 32)

    def build(v: SSAValue, w: SSAValue, b: SSAValue, line: SSAValue) -> list[SSAValue]:
        return [
            nn.LayerNormOp(v, w, b, 1e-5).result,
            nn.LayerNormOp(v, w, None, 1e-5).result,
            nn.RmsNormOp(v, w, 1e-5).result,
            nn.LayerNormOp(line, w, b, 1e-5).result,
        ]

    compare([x, floats(32), floats(32), floats(32)], build, tolerance=6e-3)


def test_transposition_of_planes() -> None:
    """Two dimensions change places in one instruction; a loop goes over the others."""
    x = np.arange(3 * 70 * 33, dtype=np.float32).reshape(3, 70, 33) % 2048
    result = compare([x], lambda v: [nn.TransposeOp(v, (0, 2, 1)).result])
    assert result.cycles < 3 * 70 * 33  # element by element it would be more
