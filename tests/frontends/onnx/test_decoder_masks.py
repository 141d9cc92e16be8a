"""Constant masks of decoders become ones that follow the position, or are refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.dialects import arith, func, ml_program
from xdsl.dialects.builtin import (
    FunctionType,
    IndexType,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    UnitAttr,
    f32,
    i32,
)
from xdsl.ir import Block, Region

from pimc.diagnostics import InputError
from pimc.frontends.decoder_masks import mask_by_position
from pimc.ir import nn
from pimc.ir.interpreter import Interpreter
from pimc.ir.locations import set_location, source_location
from pimc.ir.weights import InMemoryWeights

QUERIES, SLOTS = 3, 8
AHEAD = np.arange(SLOTS)[None, :] - (SLOTS - QUERIES) - np.arange(QUERIES)[:, None]


def module_of(mask: NDArray[np.float32]) -> tuple[ModuleOp, func.FuncOp]:
    """@main: the weights of three queries over a cache of zeros, with a constant added to their scores."""
    cache = TensorType(f32, [1, SLOTS, 1, 2])
    types = [TensorType(f32, [1, 1, QUERIES, 2]), TensorType(i32, [1])]
    block = Block(arg_types=types)
    layer = arith.ConstantOp(IntegerAttr(0, IndexType()))
    read = nn.CacheReadOp("k_cache", layer.result, cache)
    keys = nn.TransposeOp(read, (0, 2, 3, 1))
    scores = nn.MatmulOp(block.args[0], keys)
    constant = nn.ConstantOp.from_array(mask, f32)
    masked = nn.AddOp(scores, constant)
    weights = nn.SoftmaxOp(masked, 3)
    block.add_ops([layer, read, keys, scores, constant, masked, weights, func.ReturnOp(weights.result)])
    function = func.FuncOp("main", FunctionType.from_lists(types, [weights.result.type]), Region(block))
    slots = ml_program.GlobalOp(StringAttr("k_cache"), cache, UnitAttr(), None, StringAttr("private"))
    module = ModuleOp([slots, function])
    for op in module.walk():
        set_location(op, source_location("test.py", 1, 0))
    return module, function


@pytest.mark.parametrize("window", [1, 3, 4, SLOTS])
def test_windows(window: int) -> None:
    seen = (AHEAD <= 0) & (-window < AHEAD)
    module, function = module_of(np.where(seen, 0, -1e30).astype(np.float32)[None, None])
    position = function.body.block.args[1]
    assert mask_by_position(function, position, QUERIES, SLOTS) == 1
    interpreter = Interpreter(module, InMemoryWeights({}), precision="f32")
    queries = np.zeros((1, 1, QUERIES, 2), np.float32)
    for start in (0, 2, SLOTS - QUERIES):
        (got,) = interpreter.call("main", {"arg0": queries, "arg1": np.array([start], np.int32)}).values()
        ahead = np.arange(SLOTS)[None, :] - start - np.arange(QUERIES)[:, None]
        np.testing.assert_array_equal(got[0, 0] > 0, (ahead <= 0) & (ahead > -window))


@pytest.mark.parametrize(
    "mask",
    [
        np.where(AHEAD < 0, 0, -1e30),  # a token does not see itself
        np.where(AHEAD <= 1, 0, -1e30),  # it sees the next one
        np.where((AHEAD <= 0) & (AHEAD % 2 == 0), 0, -1e30),
        np.where(AHEAD <= 0, 1.0, -1e30),  # a number is added to what is seen
        np.where((AHEAD <= 0)[:1], 0, -1e30),
    ],
)
def test_others_are_refused(mask: NDArray[np.float64]) -> None:
    _, function = module_of(mask.astype(np.float32)[None, None])
    with pytest.raises(InputError, match="not causal"):
        mask_by_position(function, function.body.block.args[1], QUERIES, SLOTS)
