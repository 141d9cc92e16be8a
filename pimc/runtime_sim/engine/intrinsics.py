"""What numba lacks: IEEE binary16 in hardware, arrays over raw memory, and one column MAC as vector instructions.

All conversions round to nearest, ties to even (LLVM ``fpext``/``fptrunc``, F16C on x86-64).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from pimc.runtime_sim.engine.guard import CHECK_SYMBOL, GUARDED, install

#: A numba type or an llvmlite value; both libraries are untyped.
Node: TypeAlias = Any

_HALF = ir.HalfType()
_FLOAT = ir.FloatType()
_I16 = ir.IntType(16)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)


def _guard(ctx: Node, builder: Node, address: Node, size: Node) -> None:
    """In the guarded build: raise IndexError unless the bytes lie in one registered array (none need not)."""
    check = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I64, [_I64, _I64]), CHECK_SYMBOL)
    with builder.if_then(builder.icmp_signed("!=", size, _I64(0))):
        good = builder.call(check, [address, size])
        with builder.if_then(builder.icmp_signed("==", good, _I64(0)), likely=False):
            ctx.call_conv.return_user_exc(builder, IndexError, ("a view leaves its array",))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def half_to_float(_context: Node, bits: Node) -> Node:
    """float32 of the binary16 with these 16 bits."""

    def codegen(_ctx: Node, builder: Node, _sig: Node, args: Node) -> Node:
        return builder.fpext(builder.bitcast(args[0], _HALF), _FLOAT)

    return types.float32(types.uint16), codegen


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def float_to_half(_context: Node, value: Node) -> Node:
    """uint16 bits of the binary16 nearest to a float32."""

    def codegen(_ctx: Node, builder: Node, _sig: Node, args: Node) -> Node:
        return builder.bitcast(builder.fptrunc(args[0], _HALF), _I16)

    return types.uint16(types.float32), codegen


def _tree16(builder: Node, vector: Node) -> Node:
    """Sum of 16 lanes by halves: lane i + lane i + 8, then + 4, + 2, + 1."""
    width = 16
    while width > 1:
        width //= 2
        undefined = ir.Constant(ir.VectorType(_FLOAT, width * 2), ir.Undefined)
        low = builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_I32, width), list(range(width))))
        high = builder.shuffle_vector(
            vector, undefined, ir.Constant(ir.VectorType(_I32, width), list(range(width, 2 * width)))
        )
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(_I32, 0))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def dot16(_context: Node, weights: Node, inputs: Node) -> Node:
    """Adder-tree sum of 16 products: address of 16 binary16, address of 16 float32 -> float32."""

    def codegen(ctx: Node, builder: Node, _sig: Node, args: Node) -> Node:
        if GUARDED:
            _guard(ctx, builder, args[0], _I64(16 * 2))
            _guard(ctx, builder, args[1], _I64(16 * 4))
        halves = builder.inttoptr(args[0], ir.VectorType(_HALF, 16).as_pointer())
        floats = builder.inttoptr(args[1], ir.VectorType(_FLOAT, 16).as_pointer())
        left = builder.fpext(builder.load(halves, align=2), ir.VectorType(_FLOAT, 16))
        right = builder.load(floats, align=4)
        return _tree16(builder, builder.fmul(left, right))

    return types.float32(types.intp, types.intp), codegen


def make_view(dtype: np.dtype[Any] | type, ndim: int = 1, *, guarded: bool = GUARDED) -> Callable[..., Any]:
    """An intrinsic ``view(address, count)``: a C-contiguous array of ``dtype`` over raw memory.

    With ``ndim`` above 1, ``view(address, shape)`` with a tuple.  The caller keeps the memory alive and in bounds; the
    guarded build raises IndexError where it does not (see ``guard``).
    """
    element = from_dtype(np.dtype(dtype))
    array_type = types.Array(element, ndim, "C")
    size = np.dtype(dtype).itemsize
    shape_type = types.intp if ndim == 1 else types.UniTuple(types.intp, ndim)

    @intrinsic  # type: ignore[untyped-decorator,unused-ignore]
    def view(_context: Node, address: Node, count: Node) -> Node:
        def codegen(ctx: Node, builder: Node, _sig: Node, args: Node) -> Node:
            array = ctx.make_array(array_type)(ctx, builder)
            item = ctx.get_constant(types.intp, size)
            shape = [args[1]] if ndim == 1 else [builder.extract_value(args[1], i) for i in range(ndim)]
            strides = [item]
            for extent in shape[:0:-1]:
                strides.insert(0, builder.mul(strides[0], extent))
            if guarded:
                _guard(ctx, builder, args[0], builder.mul(strides[0], shape[0]))
            populate_array(
                array,
                data=builder.inttoptr(args[0], array.data.type),
                shape=tuple(shape),
                strides=tuple(strides),
                itemsize=item,
                meminfo=None,
            )
            return array._getvalue()

        return array_type(types.intp, shape_type), codegen

    return view  # type: ignore[no-any-return,unused-ignore]


if GUARDED:  # before anything that calls the check is linked
    install(make_view(np.int64, guarded=False))
