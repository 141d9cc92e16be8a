"""Scalar instructions: one function for each name of the ISA table.

Registers hold signed 32-bit numbers in 64 bits; results are wrapped by the caller.  ``a`` and ``b`` are the two source
operands in assembly order (the second may be an immediate).
"""

from __future__ import annotations

from pimc.runtime_sim.engine.jit import inline

_LOW = 0xFFFFFFFF


@inline
def wrap32(value: int) -> int:
    """The signed 32-bit number with the low 32 bits of ``value``."""
    return ((value & _LOW) ^ 0x80000000) - 0x80000000


@inline
def scalar_add(a: int, b: int) -> int:
    """Sum."""
    return a + b


@inline
def scalar_sub(a: int, b: int) -> int:
    """Difference."""
    return a - b


@inline
def scalar_mul(a: int, b: int) -> int:
    """Product."""
    return a * b


@inline
def scalar_and(a: int, b: int) -> int:
    """Bitwise and."""
    return a & b


@inline
def scalar_or(a: int, b: int) -> int:
    """Bitwise or."""
    return a | b


@inline
def scalar_xor(a: int, b: int) -> int:
    """Bitwise exclusive or."""
    return a ^ b


@inline
def scalar_sll(a: int, b: int) -> int:
    """Left shift."""
    return a << (b & 31)


@inline
def scalar_srl(a: int, b: int) -> int:
    """Logical right shift."""
    return (a & _LOW) >> (b & 31)


@inline
def scalar_sra(a: int, b: int) -> int:
    """Arithmetic right shift."""
    return a >> (b & 31)


@inline
def scalar_slt(a: int, b: int) -> int:
    """Signed comparison."""
    return 1 if a < b else 0


@inline
def scalar_sltu(a: int, b: int) -> int:
    """Unsigned comparison."""
    return 1 if (a & _LOW) < (b & _LOW) else 0


@inline
def scalar_min(a: int, b: int) -> int:
    """Signed minimum."""
    return min(a, b)


@inline
def scalar_max(a: int, b: int) -> int:
    """Signed maximum."""
    return max(a, b)


@inline
def scalar_divu(a: int, b: int) -> int:
    """Unsigned quotient (the caller has refused a zero divisor)."""
    return (a & _LOW) // (b & _LOW)


@inline
def scalar_remu(a: int, b: int) -> int:
    """Unsigned remainder (the caller has refused a zero divisor)."""
    return (a & _LOW) % (b & _LOW)


@inline
def scalar_addi(a: int, b: int) -> int:
    """Sum with an immediate."""
    return a + b


@inline
def scalar_ori(a: int, b: int) -> int:
    """Bitwise or with an immediate."""
    return a | b


@inline
def scalar_andi(a: int, b: int) -> int:
    """Bitwise and with an immediate."""
    return a & b


@inline
def scalar_slli(a: int, b: int) -> int:
    """Left shift by an immediate."""
    return a << (b & 31)


@inline
def scalar_srli(a: int, b: int) -> int:
    """Logical right shift by an immediate."""
    return (a & _LOW) >> (b & 31)


@inline
def scalar_srai(a: int, b: int) -> int:
    """Arithmetic right shift by an immediate."""
    return a >> (b & 31)


@inline
def scalar_lui(a: int, _b: int) -> int:
    """Immediate to the upper half."""
    return a << 16


@inline
def branch_beq(a: int, b: int) -> bool:
    """Equal."""
    return a == b


@inline
def branch_bne(a: int, b: int) -> bool:
    """Not equal."""
    return a != b


@inline
def branch_blt(a: int, b: int) -> bool:
    """Signed less."""
    return a < b


@inline
def branch_bge(a: int, b: int) -> bool:
    """Signed not less."""
    return a >= b
