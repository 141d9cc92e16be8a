"""Reference meaning of the operations we use of func, scf, arith and tensor."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.dialects import arith, func, scf, tensor
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, FloatAttr, IntegerAttr
from xdsl.ir import Operation

from pimc.diagnostics import InputError
from pimc.ir.interpreter.core import Frame, dense_values
from pimc.ir.interpreter.table import ImplementationTable, Value
from pimc.ir.locations import where

TABLE = ImplementationTable()


@TABLE.register(func.CallOp, exact=True)
def _call(frame: Frame, op: func.CallOp, args: Sequence[Value]) -> Sequence[Value]:
    interpreter = frame.interpreter
    return interpreter.run_function(interpreter.function(op.callee.root_reference.data), args)


@TABLE.register(scf.ForOp, exact=True)
def _for(frame: Frame, op: scf.ForOp, args: Sequence[Any]) -> Sequence[Value]:
    start, stop, step, *carried = args
    if step <= 0:
        raise InputError(f"scf.for has step {step}", where=where(op))
    values: Sequence[Value] = carried
    for index in range(start, stop, step):
        values = frame.run_region(op.body, (index, *values))
    return values


@TABLE.register(scf.IfOp, exact=True)
def _if(frame: Frame, op: scf.IfOp, args: Sequence[Value]) -> Sequence[Value]:
    region = op.true_region if args[0] else op.false_region
    return frame.run_region(region, ()) if region.blocks else ()


@TABLE.register(arith.ConstantOp)
def _constant(frame: Frame, op: arith.ConstantOp, args: Sequence[Value]) -> Sequence[Value]:
    value = op.value
    if isinstance(value, IntegerAttr | FloatAttr):
        return (value.value.data,)
    if isinstance(value, DenseIntOrFPElementsAttr):
        return (dense_values(value),)
    raise InputError(f"arith.constant of {value} has no meaning", where=where(op))


def _divide(lhs: int, rhs: int) -> int:
    return (abs(lhs) // abs(rhs)) * (1 if (lhs < 0) == (rhs < 0) else -1)


def _remainder(lhs: int, rhs: int) -> int:
    return lhs - rhs * _divide(lhs, rhs)


_SCALAR: dict[type[Operation], Callable[[Any, Any], Any]] = {
    arith.AddiOp: operator.add,
    arith.SubiOp: operator.sub,
    arith.MuliOp: operator.mul,
    arith.AddfOp: operator.add,
    arith.SubfOp: operator.sub,
    arith.MulfOp: operator.mul,
    arith.DivSIOp: _divide,
    arith.RemSIOp: _remainder,
    arith.DivUIOp: operator.floordiv,
    arith.RemUIOp: operator.mod,
    arith.MinSIOp: min,
    arith.MaxSIOp: max,
    arith.MinUIOp: min,
    arith.MaxUIOp: max,
    arith.AndIOp: operator.and_,
    arith.OrIOp: operator.or_,
}
"""Scalar arithmetic on Python integers (unbounded: index arithmetic never wraps in a valid program)."""


def _register_scalar(op_type: type[Operation], function: Callable[[Any, Any], Any]) -> None:
    @TABLE.register(op_type)
    def run(frame: Frame, op: Operation, args: Sequence[Any]) -> Sequence[Value]:
        return (function(args[0], args[1]),)


for _type, _function in _SCALAR.items():
    _register_scalar(_type, _function)

_PREDICATES: tuple[Callable[[Any, Any], Any], ...] = (
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
)
"""By the number of the predicate of arith.cmpi: eq ne slt sle sgt sge ult ule ugt uge."""


@TABLE.register(arith.CmpiOp)
def _cmpi(frame: Frame, op: arith.CmpiOp, args: Sequence[Any]) -> Sequence[Value]:
    return (_PREDICATES[op.predicate.value.data](args[0], args[1]),)


@TABLE.register(arith.SelectOp)
def _select(frame: Frame, op: arith.SelectOp, args: Sequence[Value]) -> Sequence[Value]:
    return (args[1] if args[0] else args[2],)


@TABLE.register(arith.IndexCastOp)
def _index_cast(frame: Frame, op: arith.IndexCastOp, args: Sequence[Any]) -> Sequence[Value]:
    return (int(args[0]),)


@TABLE.register(tensor.ExtractOp)
def _extract(frame: Frame, op: tensor.ExtractOp, args: Sequence[Any]) -> Sequence[Value]:
    array, *indices = args
    value: Value = array[tuple(indices)].item()
    return (value,)


@TABLE.register(tensor.FromElementsOp)
def _from_elements(frame: Frame, op: tensor.FromElementsOp, args: Sequence[Any]) -> Sequence[Value]:
    return (np.array(args).reshape(op.result.type.get_shape()),)
