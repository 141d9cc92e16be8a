"""The SRAM-PIM core's 32-bit instruction set (HPIM paper, section V.A: compute, communication and control
classes).

The paper gives the classes and the word size; encodings and operand choices are this project's.  Addresses
are byte addresses in the core's local memory (activation memory first, temporary memory behind it), lengths
of vector instructions are elements, lengths of transfers are bytes.  ``f16`` and ``f32`` are IEEE binary16
and binary32.
"""

from __future__ import annotations

from pimc.isa.spec import Field, Instruction, InstructionSet, Operand, OperandKind
from pimc.isa.sram_fields import (
    CONFIG_REGISTERS,
    RD,
    RS1,
    RS2,
    RS3,
    SEMAPHORE,
    ZERO_RD,
    ZERO_RS1,
    ZERO_RS2,
    ZERO_RS3,
    ZERO_SEMAPHORE,
    op,
    register,
)
from pimc.isa.sram_rows import rows_forms
from pimc.isa.sram_scalar import CONTROL, SCALAR
from pimc.isa.sram_vector import VECTOR
from pimc.isa.sram_words import WORDS

__all__ = ["CONFIG_REGISTERS", "SRAM_ISA"]

_PIM = (
    Instruction(
        "pimld",
        "pim",
        (*op(25, 0), ZERO_RS3),
        (
            register("row", RD, "first array row"),
            register("a", RS1, "f16 source rows, stride_a bytes apart"),
            register("n", RS2, "rows"),
        ),
        "pim_load",
        "pimld",
        "Write array[row + i][lane : lane + depth] = a[i][0 : depth].",
        ("depth", "lane", "stride_a"),
    ),
    *(
        Instruction(
            mnemonic,
            "pim",
            op(25, funct),
            (
                register("dst", RD, "f16 destination address (written by the .w forms only)"),
                register("x", RS1, "f16 input, depth elements"),
                register("row", RS2, "first array row"),
                register("n", RS3, "array rows"),
            ),
            "pim_gemv",
            mnemonic.replace(".", "_"),
            doc,
            ("depth",),
        )
        for funct, mnemonic, doc in (
            (4, "pimmv.a", "acc[i] += x . array[row + i]; nothing is written back."),
            (5, "pimmv.c", "acc[i] = x . array[row + i]; nothing is written back."),
            (6, "pimmv.aw", "acc[i] += x . array[row + i]; dst[i] = round(acc[i])."),
            (7, "pimmv.cw", "acc[i] = x . array[row + i]; dst[i] = round(acc[i])."),
        )
    ),
)

_TENSOR = (
    *(
        Instruction(
            mnemonic,
            "tcu",
            (*op(26, funct), ZERO_RD, ZERO_RS3),
            (
                register("a", RS1, "A, rows x depth f16, rows stride_a bytes apart"),
                register("b", RS2, "B, f16, rows stride_b bytes apart"),
            ),
            "tcu",
            mnemonic.replace(".", "_"),
            doc,
            ("rows", "cols", "depth", "stride_a", "stride_b"),
        )
        for funct, mnemonic, doc in (
            (
                0,
                "tmm.nk",
                "acc[m][n] += sum_k A[m][k] * B[n][k] (B stored cols x depth, as a linear layer's weight).",
            ),
            (1, "tmm.kn", "acc[m][n] += sum_k A[m][k] * B[k][n] (B stored depth x cols)."),
            (2, "tmmc.nk", "As tmm.nk, clearing the accumulators first."),
            (3, "tmmc.kn", "As tmm.kn, clearing the accumulators first."),
        )
    ),
    Instruction(
        "twb",
        "tcu",
        (*op(26, 4), ZERO_RS1, ZERO_RS2, ZERO_RS3),
        (register("dst", RD, "C, rows x cols f16, rows stride_c bytes apart"),),
        "tcu_writeback",
        "twb",
        "C[m][n] = round(acc[m][n]) for m < rows, n < cols.",
        ("rows", "cols", "stride_c"),
    ),
    Instruction(
        "twb.f",
        "tcu",
        (*op(26, 5), ZERO_RS1, ZERO_RS2, ZERO_RS3),
        (register("dst", RD, "C, rows x cols f32, rows stride_c bytes apart"),),
        "tcu_writeback",
        "twb_f",
        "C[m][n] = acc[m][n] for m < rows, n < cols: partial sums that later blocks of K go on from (tld.f).",
        ("rows", "cols", "stride_c"),
    ),
    Instruction(
        "tld.f",
        "tcu",
        (*op(26, 6), ZERO_RD, ZERO_RS2, ZERO_RS3),
        (register("src", RS1, "C, rows x cols f32, rows stride_c bytes apart (0: one row for all, as a bias)"),),
        "tcu_writeback",
        "tld_f",
        "acc[m][n] = C[m][n] for m < rows, n < cols; the other accumulators stay.",
        ("rows", "cols", "stride_c"),
    ),
)

_TRANSFER = (
    Instruction(
        "hrd",
        "xfer",
        (*op(27, 0), ZERO_RS3),
        (
            register("dst", RD, "local address"),
            register("src", RS1, "linear HBM address in the tile (32-aligned)"),
            register("n", RS2, "bytes (a multiple of 2)"),
        ),
        "hbm_transfer",
        "hrd",
        "HBM to local memory.",
    ),
    Instruction(
        "hwr",
        "xfer",
        (*op(27, 1), ZERO_RS3),
        (
            register("src", RS1, "local address"),
            register("dst", RD, "linear HBM address in the tile (32-aligned)"),
            register("n", RS2, "bytes (a multiple of 2)"),
        ),
        "hbm_transfer",
        "hwr",
        "Local memory to HBM.",
    ),
    Instruction(
        "hrdb",
        "xfer",
        op(27, 2),
        (
            register("dst", RD, "local address"),
            register("row", RS1, "DRAM row"),
            register("column", RS2, "bank * 32 + first column"),
            register("n", RS3, "columns of 32 bytes, within the row"),
        ),
        "hbm_transfer",
        "hrdb",
        "Read the same columns of one row and bank in every pseudo-channel q of pch_mask to "
        "dst + rank(q) * pch_stride, "
        "rank counting the set bits below q.",
        ("pch_mask", "pch_stride"),
    ),
    Instruction(
        "trans",
        "trans",
        (*op(28, 0), ZERO_RS2, ZERO_RS3),
        (
            register("dst", RD, "destination, cols x rows f16, rows stride_b bytes apart"),
            register("a", RS1, "source, rows x cols f16, rows stride_a bytes apart"),
        ),
        "transpose",
        "trans",
        "dst[c][r] = a[r][c] (the transpose unit of section V.A).",
        ("rows", "cols", "stride_a", "stride_b"),
    ),
)


def _message(code: int, mnemonic: str, multicast: bool, strided: bool) -> Instruction:
    config: tuple[str, ...] = ("group_base", "group_size") if multicast else ()
    if strided:
        config += ("message_rows", "message_src_stride", "message_dst_stride")
    where = "every core of [group_base, group_base + group_size)" if multicast else "one core"
    shape = "message_rows rows of n bytes" if strided else "n bytes"
    operands = [
        register("dst", RD, "local address at the receiver"),
        register("src", RS1, "local address here"),
        register("n", RS2, "bytes (a multiple of 2; a row of a strided message)"),
    ]
    fixed: tuple[tuple[Field, int], ...] = (*op(code), ZERO_SEMAPHORE)
    if multicast:
        fixed += (ZERO_RS3,)
    else:
        operands.append(register("core", RS3, "receiving core"))
    operands.append(Operand("sem", OperandKind.SEMAPHORE, SEMAPHORE, "semaphore of the receiver"))
    return Instruction(
        mnemonic,
        "noc",
        fixed,
        tuple(operands),
        "noc_message",
        mnemonic,
        f"Send {shape} to {where}; each receiver's semaphore grows by 1 when the last byte has arrived.",
        config,
    )


_NOC = (
    _message(32, "nsend", False, False),
    _message(33, "nsend2", False, True),
    _message(34, "nmcast", True, False),
    _message(35, "nmcast2", True, True),
)

SRAM_ISA = InstructionSet(
    "sram",
    32,
    "r",
    (*CONTROL, *SCALAR, *VECTOR, *WORDS, *_PIM, *_TENSOR, *_TRANSFER, *_NOC, *rows_forms((*VECTOR, *WORDS))),
)
