"""Changes of layout: every kind of cut to every other, by messages, against the values themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from graphs import Build, floats, module_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f16
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import VerifyException

from pimc.driver.compile import compile_imported
from pimc.frontends.model import ImportedModel
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn, pim
from pimc.ir.interpreter import Interpreter
from pimc.ir.layout import LayoutAttr, ShardAttr, ShardRound
from pimc.ir.nn.layouts import check_cuts, layout_under
from pimc.ir.stages import Stage
from pimc.runtime import Executable

ROWS = LayoutAttr.of({1: ShardAttr.blocks(40, 32)})  # two rows a core, the last twelve cores have none
FEATURES = LayoutAttr.of({2: ShardAttr.of([ShardRound(0, 0, 32, 2), ShardRound(64, 0, 16, 2)])})
HEADS = LayoutAttr.of({2: ShardAttr.of([ShardRound(0, 0, 24, 32, share=8)])})  # three heads on groups of eight
UNEVEN = LayoutAttr.of({2: ShardAttr.of([ShardRound(0, 0, 7, 14)])})  # the last core has twelve of 96
RNG = np.random.default_rng(1)
CUTS = {"rows": ROWS, "features": FEATURES, "heads": HEADS, "uneven": UNEVEN}


def compare(arrays: Sequence[np.ndarray], build: Build) -> None:
    """Partitioned IR on the machine and in the interpreter."""
    expected = Interpreter(module_of(arrays, build), None).call("main", {f"arg{i}": a for i, a in enumerate(arrays)})
    model = ImportedModel(
        module_of(arrays, build), ModelWeights({}), None, None, [], {}, "test", stage=Stage.PARTITIONED
    )
    compiled = compile_imported(model)
    result = Executable(compiled.program, compiled.target).run({f"input{i}": a for i, a in enumerate(arrays)})
    for got, want in zip(result.outputs.values(), expected.values(), strict=True):
        np.testing.assert_allclose(got, want, rtol=4e-3, atol=4e-3)


def halves(*shape: int) -> np.ndarray:
    """Normally distributed fp16."""
    return np.asarray(floats(*shape), np.float16)


def through(x: SSAValue, layouts: Sequence[LayoutAttr]) -> SSAValue:
    """``x`` taken in the first layout, changed to each other one, and made whole."""
    value = pim.TakeOp(x, layouts[0]).output
    for layout in layouts[1:]:
        value = pim.AllToAllOp(value, layout).output
    return pim.AllGatherOp(value).output


@pytest.mark.parametrize("first", CUTS)
@pytest.mark.parametrize("second", CUTS)
def test_every_cut_to_every_other(first: str, second: str) -> None:
    layouts = [CUTS[first]] if first == second else [CUTS[first], CUTS[second]]
    compare([halves(1, 40, 96)], lambda x: [through(x, layouts)])


def test_work_on_parts_of_rows() -> None:
    def build(x: SSAValue, table: SSAValue) -> list[SSAValue]:
        part, angles = pim.TakeOp(x, ROWS).output, pim.TakeOp(table, ROWS).output
        weight = nn.ConstantOp.from_array(np.linspace(0.5, 1.5, 96), f16).result
        normal = nn.RmsNormOp(part, weight, 1e-5).result
        turned = nn.RopeOp(nn.AddOp(normal, part).result, angles, 32).result
        return [pim.AllGatherOp(nn.SiluOp(turned).result).output]

    compare([halves(1, 40, 96), halves(1, 40, 64)], build)


def test_integers_and_leading_dimensions() -> None:
    def build(a: SSAValue, b: SSAValue) -> list[SSAValue]:
        rows = LayoutAttr.of({1: ShardAttr.blocks(9, 32)})
        outer = LayoutAttr.of({0: ShardAttr.blocks(3, 32)})
        return [through(a, [LayoutAttr.of({0: ShardAttr.blocks(70, 32)})]), through(b, [rows]), through(b, [outer])]

    compare([RNG.integers(-50, 50, (70, 2)).astype(np.int32), halves(3, 9, 5)], build)


@pytest.mark.parametrize("first", [0, 1, 2, None])
@pytest.mark.parametrize(
    ("cut", "places", "window"),
    [
        (2, (3, 3), nn.Window((2, 2), (1, 1), (1, 1), (0, 0))),  # rows, their neighbours' too
        (2, (5, 1), nn.Window((1, 1), (2, 1), (4, 0), (4, 0))),  # beyond the next core
        (2, (2, 2), nn.Window((2, 2), (1, 1), (0, 0), (0, 0))),  # parts that do not overlap
        (1, (3, 2), nn.Window((1, 1), (1, 1), (1, 1), (1, 0))),
        (0, (3, 2), nn.Window((1, 1), (1, 1), (1, 1), (1, 0))),
    ],
)
def test_parts_for_a_window(first: int | None, cut: int, places: tuple[int, int], window: nn.Window) -> None:
    """From every cut to what cores need of x for their part of a pooling."""
    shape = (2, 5, 38, 6)

    def build(x: SSAValue) -> list[SSAValue]:
        op = nn.MaxPoolOp(x, places, window)
        space, extent = op.space(), nn.tensor_of(op.result).get_shape()[cut]
        needed = layout_under(space, space.operands[0], {("b", "c", "y0")[cut]: ShardAttr.blocks(extent, 20)})
        assert needed is not None
        layouts = [] if first is None else [LayoutAttr.of({first: ShardAttr.blocks(shape[first], 32)})]
        value: SSAValue = x
        for layout in layouts if layouts == [needed] else [*layouts, needed]:
            value = (pim.TakeOp if value is x else pim.AllToAllOp)(value, layout).output
        return [pim.AllGatherOp(nn.MaxPoolOp(value, places, window).result).output]

    compare([halves(*shape)], build)


MOVES: dict[str, Build] = {
    "transpose": lambda x: [nn.TransposeOp(x, (2, 0, 1)).result],
    "split": lambda x: [nn.ReshapeOp(x, (3, 10, 4, 2, 6)).result],
    "join": lambda x: [nn.ReshapeOp(x, (3, 480)).result],
    "regroup": lambda x: [nn.ReshapeOp(x, (120, 12)).result],
    "slice": lambda x: [nn.SliceOp(x, (0, 3, 2), (3, 33, 12), (1, 2, 3)).result],
    "repeat": lambda x: [nn.BroadcastToOp(x, (5, 3, 40, 12)).result],
    "pad": lambda x: [nn.PadOp(x, (1, 3, 0), (0, 2, 5), "constant", 0.5).result],
    "mirror": lambda x: [nn.PadOp(x, (0, 0, 3), (0, 0, 2), "reflect").result],
    "join rows": lambda row, x, last: [nn.ConcatOp((row, x, last), 1).result],
    "pool": lambda x: [nn.MaxPoolOp(x, (4,), nn.Window((2,), (1,), (1,), (1,))).result],
}
SHAPES = {"join rows": [(3, 1, 12), (3, 40, 12), (3, 15, 12)]}


@pytest.mark.parametrize("name", MOVES)
def test_moves_on_parts(name: str) -> None:
    """Along every dimension of its space that may be cut."""
    move, arrays = MOVES[name], [halves(*shape) for shape in SHAPES.get(name, [(3, 40, 12)])]

    def build(*args: SSAValue) -> list[SSAValue]:
        op = move(*args)[0].owner
        assert isinstance(op, nn.NnOp)
        space, found = op.space(), list[SSAValue]()
        for dim in space.dims:
            cuts = {dim.name: ShardAttr.blocks(dim.size, 20)}
            try:
                check_cuts(space, cuts, name)
                layouts = [layout_under(space, access, cuts) for access in space.operands]
                taken = [
                    arg if layout is None else pim.TakeOp(arg, layout).output
                    for arg, layout in zip(args, layouts, strict=True)
                ]
            except VerifyException:
                continue
            if any(layouts):
                found.append(pim.AllGatherOp(move(*taken)[0]).output)
        assert found
        return found

    compare(arrays, build)


@st.composite
def cuts(draw: st.DrawFn, rows: int, features: int) -> LayoutAttr:
    """A cut along rows or features, in blocks."""
    dim, extent = draw(st.sampled_from([(1, rows), (2, features)]))
    return LayoutAttr.of({dim: ShardAttr.blocks(extent, draw(st.integers(1, 32)))})


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_blocks_of_any_size(data: st.DataObject) -> None:
    rows, features = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    layouts = data.draw(st.lists(cuts(rows, features), min_size=1, max_size=3))
    distinct = [layout for before, layout in zip([None, *layouts], layouts, strict=False) if layout != before]
    compare([halves(1, rows, features)], lambda x: [through(x, distinct)])
