"""Between stored numbers and float32 arrays: conversion, rounding and gathering.

Addresses are machine addresses of local memories (already checked); ``n`` counts elements.
"""

from __future__ import annotations

import numpy as np

from pimc.runtime_sim.engine.intrinsics import float_to_half, half_to_float
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.overflow import leaves_half
from pimc.runtime_sim.engine.state import FloatArray, Record, view_f32, view_u8, view_u16


@inline
def local_base(m: Record, tile: int) -> int:
    """Machine address of a tile's local memory."""
    return m.local_at + tile * m.local_bytes


@jit
def load_half(address: int, out: FloatArray, n: int) -> None:
    """out[i] = float32 of the fp16 at address + 2 i."""
    bits = view_u16(address, n)
    for i in range(n):
        out[i] = half_to_float(bits[i])


@jit
def load_float(address: int, out: FloatArray, n: int) -> None:
    """out[i] = the fp32 at address + 4 i."""
    values = view_f32(address, n)
    for i in range(n):
        out[i] = values[i]


@jit
def store_half(address: int, values: FloatArray, n: int) -> int:
    """Round n float32 to fp16 at address + 2 i; returns how many finite ones became infinite."""
    bits = view_u16(address, n)
    lost = 0
    for i in range(n):
        bits[i] = float_to_half(values[i])
        lost += leaves_half(values[i])
    return lost


@jit
def store_float(address: int, values: FloatArray, n: int) -> None:
    """Store n fp32 at address + 4 i."""
    out = view_f32(address, n)
    for i in range(n):
        out[i] = values[i]


@inline
def half_at(address: int) -> np.float32:
    """The fp16 at an address, as float32."""
    return half_to_float(view_u16(address, 1)[0])


@inline
def put_half(address: int, value: np.float32) -> int:
    """Round a float32 to the fp16 at an address; returns 1 if it was finite and became infinite."""
    view_u16(address, 1)[0] = float_to_half(value)
    return leaves_half(value)


@jit
def copy_bytes(source: int, target: int, n: int) -> None:
    """Copy n bytes between machine addresses (no overlap)."""
    a = view_u8(source, n)
    b = view_u8(target, n)
    for i in range(n):
        b[i] = a[i]
