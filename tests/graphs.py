"""Small graphs of `nn` operators on the machine and in the interpreter, for tests of the general path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    ModuleOp,
    StringAttr,
    TensorType,
    f16,
    f32,
    i1,
    i64,
)
from xdsl.ir import Block, Operation, Region, SSAValue

from pimc.driver.compile import Options, compile_imported
from pimc.frontends.model import ImportedModel
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.interpreter import Interpreter
from pimc.ir.locations import set_location, source_location
from pimc.runtime import Executable
from pimc.runtime_sim import RunResult

RNG = np.random.default_rng(0)
Build = Callable[..., Sequence[SSAValue]]


def floats(*shape: int) -> np.ndarray:
    """Normally distributed float32."""
    return RNG.standard_normal(shape).astype(np.float32)


def ids(low: int, high: int, *shape: int) -> np.ndarray:
    """Integers (int64)."""
    return RNG.integers(low, high, shape)


def weight(name: str, values: np.ndarray) -> SSAValue:
    """A stored weight."""
    return nn.ParamOp(name, TensorType(f32, values.shape)).result


def number(value: float) -> SSAValue:
    """A constant f32 number."""
    return nn.ConstantOp.from_array(np.float64(value), f32).result


def element_type(array: np.ndarray) -> object:
    """The IR's element type of an array."""
    return f16 if array.dtype == np.float16 else {"f": f32, "b": i1, "i": i64}[array.dtype.kind]


def module_of(arrays: Sequence[np.ndarray], build: Build, names: Sequence[str] = ()) -> ModuleOp:
    """@main on inputs like ``arrays``; ``build`` makes the results from the arguments."""
    types = [TensorType(element_type(a), a.shape) for a in arrays]
    block = Block(arg_types=types)
    results = list(build(*block.args))
    made: list[Operation] = []
    for result in results:
        _collect(result, made)
    block.add_ops(made)
    block.add_op(func.ReturnOp(*results))
    signature = FunctionType.from_lists(types, [r.type for r in results])
    function = func.FuncOp("main", signature, Region(block))
    if names:
        function.arg_attrs = ArrayAttr([DictionaryAttr({"pimc.name": StringAttr(name)}) for name in names])
    module = ModuleOp([function])
    for op in module.walk():
        set_location(op, source_location("test.py", 1, 0))
    return module


def _collect(value: SSAValue, made: list[Operation]) -> None:
    """Operations that ``value`` needs, before their users."""
    op = value.owner
    if isinstance(op, Block) or op in made:
        return
    for operand in op.operands:
        _collect(operand, made)
    made.append(op)


def executable(
    module: ModuleOp,
    weights: Mapping[str, np.ndarray] | None = None,
    overrides: tuple[str, ...] = (),
    pipeline: str | None = None,
) -> Executable:
    """The module compiled with the default pipeline, or another, for hpim with other figures."""
    model = ImportedModel(module, ModelWeights(dict(weights or {})), None, None, [], {}, "test")
    compiled = compile_imported(model, options=Options(overrides=overrides, pipeline=pipeline))
    return Executable(compiled.program, compiled.target)


def compare(
    arrays: Sequence[np.ndarray],
    build: Build,
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    tolerance: float = 2e-3,
    overrides: tuple[str, ...] = (),
    pipeline: str | None = None,
) -> RunResult:
    """Run on the machine and in the interpreter (fp32): integers and truth values equal, floats within tolerance."""
    store = ModelWeights(dict(weights or {}))
    reference = Interpreter(module_of(arrays, build), store, precision="f32")
    expected = reference.call("main", {f"arg{i}": a for i, a in enumerate(arrays)})
    result = executable(module_of(arrays, build), weights, overrides, pipeline).run(
        {f"input{i}": a for i, a in enumerate(arrays)}
    )
    for got, want in zip(result.outputs.values(), expected.values(), strict=True):
        assert got.shape == want.shape
        if want.dtype.kind in "iub":
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return result
