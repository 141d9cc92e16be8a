"""Convolutions through the passes: the interpreter gives the same after each; how channels are cut."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Build, floats, module_of, weight
from tiny_models import run_pass
from xdsl.ir import SSAValue

from pimc.frontends.weights import ModelWeights
from pimc.ir import nn, pim
from pimc.ir.context import parse_module, print_module, verify_module
from pimc.ir.interpreter import Interpreter
from pimc.passes.annotate import AnnotatePass
from pimc.passes.conv_cut import outputs_per_core
from pimc.passes.layout import LayoutPass
from pimc.passes.legalize import LegalizePass
from pimc.passes.partition import PartitionPass
from pimc.passes.place import PlacePass
from pimc.passes.schedule import SchedulePass
from pimc.passes.tile import TilePass

PASSES = (LegalizePass(), AnnotatePass(), PlacePass(), PartitionPass(), LayoutPass(), TilePass(), SchedulePass())
WEIGHTS = {
    "w": floats(40, 6, 3, 2),
    "b": floats(40),
    "g": floats(20, 2, 3, 3),
    "i": floats(64, 3, 7, 7),
    "s": floats(64, 64, 3, 3),
}


AROUND = nn.Window((1, 1), (1, 1), (1, 1), (1, 1))


def image(x: SSAValue) -> list[SSAValue]:
    """A convolution and a pooling of an image with more rows than cores."""
    first = nn.ConvOp(x, weight("i", WEIGHTS["i"]), None, nn.Window((2, 2), (1, 1), (3, 3), (3, 3)))
    pooled = nn.MaxPoolOp(nn.ReluOp(first), (3, 3), nn.Window((2, 2), (1, 1), (1, 1), (0, 0)))
    return [nn.AddOp(nn.ConvOp(pooled, weight("s", WEIGHTS["s"]), None, AROUND), pooled).result]


def network(x: SSAValue) -> list[SSAValue]:
    """A convolution with steps, distances and uneven padding, and one in 20 groups of channels."""
    first = nn.ConvOp(
        x, weight("w", WEIGHTS["w"]), weight("b", WEIGHTS["b"]), nn.Window((2, 1), (1, 2), (1, 0), (0, 2))
    )  # fmt: skip
    return [nn.ConvOp(nn.ReluOp(first), weight("g", WEIGHTS["g"]), None, AROUND, 20).result]


@pytest.mark.parametrize(("build", "shape"), [(network, (2, 6, 7, 5)), (image, (1, 3, 224, 30))])
def test_passes_keep_the_meaning(build: Build, shape: tuple[int, ...]) -> None:
    arrays = [floats(*shape)]
    module, store = module_of(arrays, build), ModelWeights(WEIGHTS)
    (expected,) = Interpreter(module, store, "f32").call("main", {"arg0": arrays[0]}).values()
    for step in PASSES:
        run_pass(module, step)
        verify_module(module)
        (got,) = Interpreter(module, store, "f32").call("main", {"arg0": arrays[0]}).values()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3, err_msg=step.name)
    assert sum(isinstance(op, pim.ConvOp) for op in module.walk()) == 2
    text = print_module(module)
    assert print_module(parse_module(text)) == text


@pytest.mark.parametrize(
    ("outputs", "groups", "mine"),
    [(64, 1, 2), (40, 1, 2), (7, 1, 1), (64, 64, 2), (65, 65, 3), (64, 16, 2), (36, 3, 2), (21, 3, 1), (99, 3, 11)],
)
def test_a_core_has_a_part_of_a_group_or_whole_groups(outputs: int, groups: int, mine: int) -> None:
    assert outputs_per_core(outputs, groups, 32) == mine
