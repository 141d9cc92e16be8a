"""Lowerings of reads and writes at computed indices: the simulated program against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp, TensorType, f32, i64
from xdsl.ir import Block, Region, SSAValue

from pimc.driver.compile import compile_imported
from pimc.frontends.model import ImportedModel
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.interpreter import Interpreter
from pimc.ir.locations import set_location, source_location
from pimc.runtime import Executable

RNG = np.random.default_rng(0)


def module_of(arrays: list[np.ndarray], build) -> ModuleOp:
    """@main on inputs like ``arrays``; ``build`` makes the results from the arguments."""
    types = [TensorType(f32 if a.dtype == np.float32 else i64, a.shape) for a in arrays]
    block = Block(arg_types=types)
    results = build(*block.args)
    made: list = []
    for result in results:
        _collect(result, made)
    block.add_ops(made)
    block.add_op(func.ReturnOp(*results))
    signature = FunctionType.from_lists(types, [r.type for r in results])
    module = ModuleOp([func.FuncOp("main", signature, Region(block))])
    for op in module.walk():
        set_location(op, source_location("test.py", 1, 0))
    return module


def _collect(value: SSAValue, made: list) -> None:
    op = value.owner
    if isinstance(op, Block) or op in made:
        return
    for operand in op.operands:
        _collect(operand, made)
    made.append(op)


def compare(arrays: list[np.ndarray], build, *, tolerance: float = 2e-3) -> None:
    """Run on the machine and in the interpreter; integers must be equal."""
    inputs = {f"input{i}": a for i, a in enumerate(arrays)}
    reference = Interpreter(module_of(arrays, build), None, precision="f32")
    expected = reference.call("main", {f"arg{i}": a for i, a in enumerate(arrays)})
    model = ImportedModel(module_of(arrays, build), ModelWeights({}), None, None, [], {}, "test")
    compiled = compile_imported(model)
    outputs = Executable(compiled.program, compiled.target).run(inputs).outputs
    for got, want in zip(outputs.values(), expected.values(), strict=True):
        assert got.shape == want.shape
        if want.dtype.kind in "iub":
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ids(low: int, high: int, *shape: int) -> np.ndarray:
    return RNG.integers(low, high, shape)


@pytest.mark.parametrize(
    ("shape", "axis", "count"),
    [((5, 3), 0, (4,)), ((2, 5, 3), 1, (2, 2)), ((4, 7), 1, (3,)), ((6,), 0, ()), ((2, 3, 4), -1, (1, 3))],
)
def test_gather(shape: tuple[int, ...], axis: int, count: tuple[int, ...]) -> None:
    extent = shape[axis]
    compare([floats(*shape), ids(-extent, extent, *count)], lambda x, i: [nn.GatherOp(x, i, axis).result])


def test_gather_of_integers() -> None:
    compare([ids(-(10**6), 10**6, 5, 2), ids(-5, 5, 3)], lambda x, i: [nn.GatherOp(x, i, 0).result])


def test_an_index_outside_is_the_nearest() -> None:
    x = floats(4)
    module = module_of([x, ids(0, 1, 3)], lambda x, i: [nn.GatherOp(x, i, 0).result])
    compiled = compile_imported(ImportedModel(module, ModelWeights({}), None, None, [], {}, "test"))
    (got,) = Executable(compiled.program, compiled.target).run(x, np.array([9, -9, -1])).outputs.values()
    np.testing.assert_allclose(got, x[[3, 0, 3]], rtol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis: int) -> None:
    x = floats(4, 3, 5)
    compare([x, ids(-3, 3, 4, 3, 5)], lambda x, i: [nn.GatherElementsOp(x, i, axis).result])


@pytest.mark.parametrize(
    ("shape", "indices", "batch"),
    [((4, 5, 3), (6, 2), 0), ((4, 5, 3), (2, 3, 1), 0), ((2, 4, 3), (2, 3, 1), 1), ((2, 2), (3, 2), 0)],
)
def test_gather_nd(shape: tuple[int, ...], indices: tuple[int, ...], batch: int) -> None:
    compare([floats(*shape), ids(-2, 2, *indices)], lambda x, i: [nn.GatherNdOp(x, i, batch).result])


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_elements(reduction: str) -> None:
    indices = np.array([[0, 2, -1], [1, 0, 2]])  # each element of the result at most once a column
    updates = floats(2, 3)
    compare(
        [floats(4, 3), indices, updates],
        lambda x, i, u: [nn.ScatterElementsOp(x, i, u, 0, reduction).result],
    )


def test_scatter_elements_of_integers() -> None:
    arrays = [ids(-100, 100, 5), np.array([1, 1, -1]), ids(-100, 100, 3)]
    for reduction in ("add", "mul", "max", "min"):
        compare(arrays, lambda x, i, u, r=reduction: [nn.ScatterElementsOp(x, i, u, 0, r).result])


@pytest.mark.parametrize("reduction", ["none", "add", "max"])
def test_scatter_nd(reduction: str) -> None:
    arrays = [floats(4, 5, 3), np.array([[0, 1], [-1, 4], [2, 2]]), floats(3, 3)]
    compare(arrays, lambda x, i, u: [nn.ScatterNdOp(x, i, u, reduction).result])
