"""Iteration spaces: what an operator is said to read for a part of its results is all that matters to that part."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest
from graphs import module_of
from one_operator import value
from random_graphs.case import interpreted
from random_graphs.draw import draw
from xdsl.dialects.builtin import ModuleOp, TensorType, f16, f32, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from pimc.ir import nn
from pimc.ir.nn.base import shape_of
from pimc.ir.nn.space import Access, Space, reshaped

Array = np.ndarray
X, ROW, TABLE = value("f32", 4, 6), value("f32", 6), value("f32", 50, 6)
IMAGE, IDS = value("f32", 1, 3, 8, 8), value("i64", 2, 5)
TOKENS, KEYS = value("f16", 1, 5, 24), value("f16", 1, 7, 8)


@pytest.mark.parametrize(
    ("op", "space"),
    [
        (nn.TanhOp(X), "(i0, i1) : [i0, i1] -> [i0, i1]"),
        (nn.AddOp(X, ROW), "(i0, i1) : [i0, i1], [i1] -> [i0, i1]"),
        (nn.ReduceMaxOp(X, [1]), "(i0, i1: max) : [i0, i1] -> [i0]"),
        (nn.ReduceSumOp(X, [0], True), "(i0: sum, i1) : [i0, i1] -> [0, i1]"),
        (nn.RmsNormOp(X, ROW, 1e-5), "(i0, i1: whole) : [i0, i1], [i1] -> [i0, i1]"),
        (nn.SoftmaxOp(X, 0), "(i0: whole, i1) : [i0, i1] -> [i0, i1]"),
        (nn.LinearOp(X, TABLE), "(i0, n, k: sum) : [i0, k], [n, k] -> [i0, n]"),
        (nn.MatmulOp(IMAGE, value("f32", 8, 2)), "(i0, i1, m, n, k: sum) : [0, i1, m, k], [k, n] -> [i0, i1, m, n]"),
        (nn.TransposeOp(X, [1, 0]), "(i0, i1) : [i0, i1] -> [i1, i0]"),
        (nn.SliceOp(X, [1, 5], [4, 0], [2, -1]), "(i0, i1) : [2*i0 + 1, -1*i1 + 5] -> [i0, i1]"),
        (nn.PadOp(X, [1, 0], [2, 0]), "(i0, i1) : [i0 - 1, i1] -> [i0, i1]"),
        (nn.PadOp(X, [1, 0], [2, 0], "wrap"), "(i0, i1, w0: whole) : [w0, i1] -> [i0, i1]"),
        (nn.ConcatOp([X, X], 0), "(i0, i1) : [i0, i1], [i0 - 4, i1] -> [i0, i1]"),
        (nn.ReshapeOp(X, [2, 12]), "(p0_0, p0_1, p0_2) : [2*p0_0 + p0_1, p0_2] -> [p0_0, 6*p0_1 + p0_2]"),
        (nn.EmbeddingOp(TABLE, IDS), "(i0, i1, f, t: whole) : [t, f], [i0, i1] -> [i0, i1, f]"),
        (nn.GatherOp(X, IDS, 1), "(i0, i1, i2, t: whole) : [i0, t], [i1, i2] -> [i0, i1, i2]"),
        (nn.TopKOp(X, 2), "(i0, i1, t: whole) : [i0, t] -> [i0, i1], [i0, i1]"),
        (nn.ArgMaxOp(X, 1), "(i0, i1: whole) : [i0, i1] -> [i0]"),
        (
            nn.ConvOp(IMAGE, value("f32", 4, 3, 3, 2), value("f32", 4), nn.Window((2, 1), (1, 2), (1, 0), (0, 0))),
            "(b, o, y0, y1, c: sum, u0: sum, u1: sum) : [b, c, 2*y0 + u0 - 1, y1 + 2*u1], [o, c, u0, u1], [o]"
            " -> [b, o, y0, y1]",
        ),
        (
            nn.ConvOp(KEYS, value("f16", 14, 1, 3), None, nn.Window.plain((1,), (1,)), 7),
            "(b, g, o, y0, c: sum, u0: sum) : [b, g + c, y0 + u0], [2*g + o, c, u0] -> [b, 2*g + o, y0]",
        ),
        (
            nn.MaxPoolOp(IMAGE, (3, 2), nn.Window((2, 1), (1, 1), (1, 0), (1, 0))),
            "(b, c, y0, y1, u0: max, u1: max) : [b, c, 2*y0 + u0 - 1, y1 + u1] -> [b, c, y0, y1]",
        ),
        (
            nn.AttentionFullOp(TOKENS, KEYS, KEYS, heads=6, kv_heads=2, head_dim=4, scale=0.5),
            "(b, m, g, r, n: softmax, d: sum, e) : [b, m, 12*g + 4*r + d], [b, n, 4*g + d], [b, n, 4*g + e]"
            " -> [b, m, 12*g + 4*r + e]",
        ),
    ],
    ids=lambda found: found.name if isinstance(found, Operation) else "",
)
def test_spaces(op: nn.NnOp, space: str) -> None:
    assert str(op.space()) == space


@pytest.mark.parametrize(
    ("shape", "result", "space"),
    [
        ([4, 6], [8, 3], "(p0_0, p0_1, p0_2) : [p0_0, 3*p0_1 + p0_2] -> [2*p0_0 + p0_1, p0_2]"),
        ([4, 6], [3, 8], "(w0_0: whole, w0_1: whole, r0_0, r0_1) : [w0_0, w0_1] -> [r0_0, r0_1]"),
        ([5, 1], [1, 5], "(p0_0) : [p0_0, 0] -> [0, p0_0]"),
        ([2, 3, 4], [6, 4], "(p0_0, p0_1, p1_0) : [p0_0, p0_1, p1_0] -> [3*p0_0 + p0_1, p1_0]"),
        ([1, 1], [], "() : [0, 0] -> []"),
        ([0, 3], [0], "(w0_0: whole, w0_1: whole, r0_0) : [w0_0, w0_1] -> [r0_0]"),
    ],
)  # fmt: skip
def test_reshapes(shape: list[int], result: list[int], space: str) -> None:
    assert str(reshaped(shape, result)) == space


def test_a_halo_follows_from_the_space() -> None:
    """Of a padded image, what the rows 2 and 3 of the result need."""
    space = nn.PadOp(IMAGE, [0, 0, 1, 1], [0, 0, 1, 1]).space()
    assert space.reads(0, {"i2": range(2, 4)}) == (range(1), range(3), range(1, 3), range(8))
    assert space.reads(0, {"i2": range(1)})[2] == range(0)  # padding alone


def test_the_halo_of_a_convolution() -> None:
    """Rows 2 and 3 of the results of a window of 3 with step 2; the first row's window begins in the padding."""
    window = nn.Window((2, 1), (1, 1), (1, 1), (1, 1))
    space = nn.ConvOp(IMAGE, value("f32", 4, 3, 3, 3), None, window).space()
    assert space.reads(0, {"y0": range(2, 4)})[2] == range(3, 8)
    assert space.reads(0, {"y0": range(1)})[2] == range(2)
    assert space.flops() == 2 * 4 * 4 * 8 * 3 * 9


def test_work_of_a_part() -> None:
    space = nn.LinearOp(X, TABLE, value("f32", 50)).space()
    assert space.flops() == 4 * 50 * (2 * 6 + 1)
    assert space.flops({"n": range(10), "i0": range(1, 3)}) == 2 * 10 * (2 * 6 + 1)


def test_a_space_that_contradicts_itself() -> None:
    good = nn.TanhOp(X).space()
    with pytest.raises(ValueError, match="no dimension i1"):
        Space(good.dims[:1], good.operands, good.results)
    with pytest.raises(ValueError, match="twice"):
        Space((*good.dims, good.dims[0]), good.operands, good.results)


# -- against the interpreter ------------------------------------------------------------------------------------------


def operators(seeds: range) -> Iterator[tuple[nn.NnOp, list[Array]]]:
    """The operators of random graphs, with their operands."""
    for seed in seeds:
        graph = draw(seed)
        module = graph.module()
        (function,) = module.body.ops
        assert isinstance(function, FuncOp)
        ops = [op for op in function.body.ops if isinstance(op, nn.NnOp) and op.operands]
        values = list(dict.fromkeys(operand for op in ops for operand in op.operands))
        found = dict(zip(values, _values_of(graph.weights(), function, values, graph.arrays()), strict=True))
        for op in ops:
            half = [operand.type.element_type == f16 for operand in op.operands]  # computed in f32
            yield (
                op,
                [
                    found[v].astype(np.float16) if narrow else found[v]
                    for v, narrow in zip(op.operands, half, strict=True)
                ],
            )


def _values_of(weights: dict[str, Array], function: FuncOp, values: list[SSAValue], inputs: list[Array]) -> list[Array]:
    returned = function.body.block.last_op
    assert isinstance(returned, ReturnOp)
    returned.detach()
    function.body.block.add_op(ReturnOp(*values))
    function.update_function_type()
    module = function.parent_op()
    assert isinstance(module, ModuleOp)
    return interpreted(module, weights, inputs)


def run(op: nn.NnOp, operands: list[Array]) -> list[Array]:
    """The results of one operator on other operands."""

    def build(*arguments: SSAValue) -> list[SSAValue]:
        copy = op.clone(dict(zip(op.operands, arguments, strict=True)))
        return list(copy.results)

    module = module_of(operands, build)
    (function,) = module.body.ops
    assert isinstance(function, FuncOp)
    assert function.body.block.arg_types == op.operand_types
    return interpreted(module, {}, operands)


def part_of(space: Space, rng: random.Random) -> dict[str, range]:
    """Some indices of each parallel dimension."""
    box: dict[str, range] = {}
    for dim in space.dims:
        if dim.kind == "parallel" and dim.size:
            start = rng.randrange(dim.size)
            box[dim.name] = range(start, rng.randrange(start, dim.size) + 1)
    return box


def spoiled(array: Array, kept: tuple[range, ...], rng: np.random.Generator) -> Array:
    """Other elements outside ``kept``: large floats, other integers of the array (which stay valid indices)."""
    if array.dtype.kind == "f":
        other = np.array(rng.standard_normal(array.shape) * 1000, array.dtype)
    elif array.dtype.kind == "b":
        other = np.array(~array)
    else:
        other = np.array(rng.permutation(array.reshape(-1)).reshape(array.shape))
    place = tuple(slice(part.start, max(part.start, part.stop)) for part in kept)
    other[place] = array[place]
    return other


def points(access: Access, box: dict[str, range]) -> tuple[Array, ...]:
    """The very elements that a box writes (a hull may have more), for indexing."""
    places = []
    for index in access.indices:
        ranges = [[factor * at for at in box[name]] for name, factor in index.terms]
        places.append(sorted({index.offset + sum(point) for point in itertools.product(*ranges)}))
    return np.ix_(*places)


def test_nothing_else_matters() -> None:
    """Results of a part do not change when all changes that the space says the part does not read."""
    rng, spoil = random.Random(5), np.random.default_rng(5)
    seen: set[str] = set()
    for op, operands in operators(range(300)):
        if len(set(op.operands)) < len(op.operands):
            continue  # one value in two places
        space = op.space()
        assert len(space.operands) == len(op.operands), op.name
        assert [access.shape for access in space.results] == [shape_of(result) for result in op.results], op.name
        box = part_of(space, rng)
        changed = [spoiled(a, space.reads(place, box), spoil) for place, a in enumerate(operands)]
        for number, (before, after) in enumerate(zip(run(op, operands), run(op, changed), strict=True)):
            place = points(space.results[number], space.full(box))
            np.testing.assert_allclose(after[place], before[place], rtol=1e-5, atol=1e-5, err_msg=f"{op} {box}")
        seen.add(op.name)
    assert len(seen) > 50, sorted(seen)


def test_every_index_of_a_result_is_written_once() -> None:
    """The boxes of one index each, over the parallel dimensions, cover the results without overlap."""
    for op in (nn.ReshapeOp(X, [2, 12]), nn.ConcatOp([X, X], 1), nn.AttentionFullOp(
        TOKENS, KEYS, KEYS, heads=6, kv_heads=2, head_dim=4, scale=0.5
    ), nn.RopeOp(TOKENS, value("f16", 1, 5, 8), 4), nn.IotaOp(TensorType(i64, [2, 3])), nn.CastOp(X, f32)):  # fmt: skip
        space = op.space()
        for number, access in enumerate(space.results):
            count = np.zeros(access.shape, int)
            names = [dim for dim in space.dims if any(dim.name == n for i in access.indices for n, _ in i.terms)]
            for point in np.ndindex(*(dim.size for dim in names)):
                box = {dim.name: range(at, at + 1) for dim, at in zip(names, point, strict=True)}
                count[tuple(slice(part.start, part.stop) for part in space.writes(number, box))] += 1
            assert (count == 1).all(), op.name
