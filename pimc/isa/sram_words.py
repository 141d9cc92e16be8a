"""Vector instructions of the SRAM-PIM core that move, select, index or count: elements as they are, 32-bit integers."""

from __future__ import annotations

from pimc.isa.spec import Instruction
from pimc.isa.sram_fields import RD, RS1, RS2, RS3, ZERO_RS2, op, register

_N = register("n", RS3, "elements")
_SPECIAL = "vector_special"


def _unary(
    mnemonic: str,
    fixed: int,
    semantics: str,
    doc: str,
    latency: str = "vector",
    config: tuple[str, ...] = (),
    opcode: int = 24,
) -> Instruction:
    operands = (register("dst", RD, "destination address"), register("a", RS1, "source address"), _N)
    return Instruction(mnemonic, "vcu", (*op(opcode, fixed), ZERO_RS2), operands, latency, semantics, doc, config)


def _strided(mnemonic: str, fixed: int, bits: int) -> Instruction:
    doc = (
        f"Element i at dst + i * stride_b = element i at a + i * stride_a, {bits} bits as they are; strides may be "
        "zero or negative."
    )
    return _unary(mnemonic, fixed, f"strided{bits}", doc, "vector_strided", ("stride_a", "stride_b"))


def _select(mnemonic: str, fixed: int, bits: int) -> Instruction:
    operands = (
        register("dst", RD, "destination address, read too"),
        register("a", RS1, "source address"),
        register("b", RS2, "f16 condition"),
        _N,
    )
    doc = f"dst[i] = a[i] where b[i] is not 0; {bits} bits as they are."
    return Instruction(mnemonic, "vcu", op(24, fixed), operands, "vector", f"select{bits}", doc)


def _integer(funct: int, name: str, doc: str, latency: str = "vector") -> Instruction:
    operands = (
        register("dst", RD, "destination address"),
        register("a", RS1, "first source address, i32"),
        register("b", RS2, "second source address, i32"),
        _N,
    )
    return Instruction(f"v{name}.i", "vcu", op(29, funct), operands, latency, f"int_{name}", doc)


WORDS = (
    _select("vsel.h", 4, 16),
    _select("vsel.f", 36, 32),
    _strided("vmovs.h", 5, 16),
    _strided("vmovs.f", 37, 32),
    *(
        _unary(
            mnemonic,
            fixed,
            f"argmax{bits}",
            "dst = i32 index of the first largest a[i], of the first NaN if there is one; 0 for no elements.",
            "vector_reduce",
            opcode=23,
        )
        for mnemonic, fixed, bits in (("vargmax.h", 8, 16), ("vargmax.f", 40, 32))
    ),
    _unary("vitof", 6, "int_to_float", "dst[i] = f32 nearest to the i32 a[i]."),
    _unary(
        "vftoi", 7, "float_to_int", "dst[i] = i32 of the f32 a[i], towards zero; the nearest i32 if none, 0 for NaN."
    ),
    _integer(0, "add", "dst[i] = a[i] + b[i], modulo 2^32."),
    _integer(1, "sub", "dst[i] = a[i] - b[i], modulo 2^32."),
    _integer(2, "mul", "dst[i] = a[i] * b[i], modulo 2^32."),
    _integer(3, "div", "dst[i] = a[i] / b[i] towards zero; 0 where b[i] is.", _SPECIAL),
    _integer(4, "max", "dst[i] = max(a[i], b[i]), signed."),
    _integer(5, "min", "dst[i] = min(a[i], b[i]), signed."),
    _integer(6, "rem", "dst[i] = remainder of that division, the sign of a[i]; 0 where b[i] is.", _SPECIAL),
    _integer(7, "mod", "dst[i] = remainder with the sign of b[i]; 0 where b[i] is.", _SPECIAL),
    _integer(8, "and", "dst[i] = a[i] and b[i], bitwise."),
    _integer(9, "or", "dst[i] = a[i] or b[i], bitwise."),
    _integer(10, "xor", "dst[i] = a[i] exclusive or b[i], bitwise."),
    _integer(11, "sll", "dst[i] = a[i] << (b[i] mod 32)."),
    _integer(12, "sra", "dst[i] = a[i] >> (b[i] mod 32), arithmetic."),
    _integer(16, "eq", "dst[i] = f16 1 if a[i] == b[i], else 0."),
    _integer(17, "lt", "dst[i] = f16 1 if a[i] < b[i] (signed), else 0."),
    _integer(18, "le", "dst[i] = f16 1 if a[i] <= b[i] (signed), else 0."),
)
