"""The SRAM-PIM core's 32-bit instruction set (HPIM paper, section V.A: compute, communication and control classes).

The paper gives the classes and the word size; encodings and operand choices are this project's.  Addresses are byte
addresses in the core's local memory (activation memory first, temporary memory behind it), lengths of vector
instructions are elements, lengths of transfers are bytes.  ``f16`` and ``f32`` are IEEE binary16 and binary32.
"""

from __future__ import annotations

from pimc.isa.spec import Field, Instruction, InstructionSet, Operand, OperandKind

_OPCODE = Field("opcode", 26, 6)
_RD = Field("rd", 21, 5)
_RS1 = Field("rs1", 16, 5)
_RS2 = Field("rs2", 11, 5)
_RS3 = Field("rs3", 6, 5)
_FUNCT = Field("funct", 0, 6)
_IMM = Field("imm16", 0, 16)
_SHIFT = Field("shift", 0, 5)
_SEMAPHORE = Field("sem", 0, 5)
_CONFIG = Field("config", 21, 4)

#: Configuration registers, by name, with the number ``cfg`` takes and what they hold.
CONFIG_REGISTERS: dict[str, tuple[int, str]] = {
    "head_dim": (0, "elements a head, for vrope"),
    "rows": (1, "rows of a strided operation: vwsum (rows summed), trans (source rows), tmm/twb (M)"),
    "cols": (2, "columns of a strided operation: trans (source columns), tmm/twb (N)"),
    "depth": (3, "K of tmm; active lanes of pimld and pimmv (<= 128)"),
    "stride_a": (4, "bytes between source rows: vwsum, trans, pimld; between rows of A for tmm"),
    "stride_b": (5, "bytes between rows of B for tmm; between destination rows of trans"),
    "stride_c": (6, "bytes between rows of C for twb"),
    "lane": (7, "first lane that pimld writes"),
    "parts": (8, "partial sums a result that vredp adds"),
    "group_base": (9, "first core of a multicast group"),
    "group_size": (10, "cores of a multicast group"),
    "pch_mask": (11, "pseudo-channels of the tile that hrdb reads, bit q for pseudo-channel q"),
    "pch_stride": (12, "bytes in local memory between the pieces of consecutive pseudo-channels, hrdb"),
    "message_rows": (13, "rows of a strided message (nsend2, nmcast2)"),
    "message_src_stride": (14, "bytes between the rows of a strided message at the sender"),
    "message_dst_stride": (15, "bytes between the rows of a strided message at the receiver"),
}


def _register(name: str, field: Field, doc: str, writes: bool = False) -> Operand:
    return Operand(name, OperandKind.REGISTER, field, doc, writes)


def _op(code: int, funct: int | None = None) -> tuple[tuple[Field, int], ...]:
    return ((_OPCODE, code),) if funct is None else ((_OPCODE, code), (_FUNCT, funct))


_ZERO_RD = (_RD, 0)
_ZERO_RS1 = (_RS1, 0)
_ZERO_RS2 = (_RS2, 0)
_ZERO_RS3 = (_RS3, 0)
_ZERO_IMM = (_IMM, 0)
_ZERO_SHIFT = (Field("zero5", 5, 11), 0)
_ZERO_SEMAPHORE = (Field("zero5", 5, 1), 0)
_ZERO_CONFIG = (Field("zero25", 25, 1), 0)


def _scalar_rrr(funct: int, mnemonic: str, doc: str) -> Instruction:
    return Instruction(
        mnemonic,
        "scu",
        (*_op(1, funct), _ZERO_RS3),
        (
            _register("rd", _RD, "result", True),
            _register("rs1", _RS1, "left"),
            _register("rs2", _RS2, "right"),
        ),
        "scalar",
        f"scalar_{mnemonic}",
        doc,
    )


def _scalar_rri(code: int, mnemonic: str, kind: OperandKind, doc: str) -> Instruction:
    return Instruction(
        mnemonic,
        "scu",
        _op(code),
        (
            _register("rd", _RD, "result", True),
            _register("rs1", _RS1, "left"),
            Operand("imm", kind, _IMM, "right"),
        ),
        "scalar",
        f"scalar_{mnemonic}",
        doc,
    )


def _shift_imm(code: int, mnemonic: str, doc: str) -> Instruction:
    return Instruction(
        mnemonic,
        "scu",
        (*_op(code), _ZERO_SHIFT),
        (
            _register("rd", _RD, "result", True),
            _register("rs1", _RS1, "left"),
            Operand("imm", OperandKind.UNSIGNED, _SHIFT, "bits"),
        ),
        "scalar",
        f"scalar_{mnemonic}",
        doc,
    )


def _branch(code: int, mnemonic: str, condition: str) -> Instruction:
    return Instruction(
        mnemonic,
        "scu",
        _op(code),
        (
            _register("rs1", _RD, "left"),
            _register("rs2", _RS1, "right"),
            Operand("target", OperandKind.LABEL, _IMM, "words from this instruction"),
        ),
        "branch",
        f"branch_{mnemonic}",
        f"Branch if {condition} (signed 32-bit).",
    )


_SCALAR = (
    _scalar_rrr(0, "add", "rd = rs1 + rs2, modulo 2^32."),
    _scalar_rrr(1, "sub", "rd = rs1 - rs2, modulo 2^32."),
    _scalar_rrr(2, "mul", "rd = low 32 bits of rs1 * rs2."),
    _scalar_rrr(3, "and", "Bitwise and."),
    _scalar_rrr(4, "or", "Bitwise or."),
    _scalar_rrr(5, "xor", "Bitwise exclusive or."),
    _scalar_rrr(6, "sll", "rd = rs1 << (rs2 mod 32)."),
    _scalar_rrr(7, "srl", "Logical right shift by rs2 mod 32."),
    _scalar_rrr(8, "sra", "Arithmetic right shift by rs2 mod 32."),
    _scalar_rrr(9, "slt", "rd = 1 if rs1 < rs2 (signed), else 0."),
    _scalar_rrr(10, "sltu", "rd = 1 if rs1 < rs2 (unsigned), else 0."),
    _scalar_rrr(11, "min", "Signed minimum."),
    _scalar_rrr(12, "max", "Signed maximum."),
    _scalar_rrr(13, "divu", "Unsigned quotient; division by zero stops the run with an error."),
    _scalar_rrr(14, "remu", "Unsigned remainder; division by zero stops the run with an error."),
    _scalar_rri(2, "addi", OperandKind.SIGNED, "rd = rs1 + imm, modulo 2^32."),
    _scalar_rri(3, "ori", OperandKind.UNSIGNED, "rd = rs1 | imm, imm zero-extended."),
    _scalar_rri(4, "andi", OperandKind.UNSIGNED, "rd = rs1 & imm, imm zero-extended."),
    _shift_imm(5, "slli", "rd = rs1 << imm (imm < 32)."),
    _shift_imm(6, "srli", "Logical right shift by imm (imm < 32)."),
    _shift_imm(7, "srai", "Arithmetic right shift by imm (imm < 32)."),
    Instruction(
        "lui",
        "scu",
        (*_op(8), _ZERO_RS1),
        (
            _register("rd", _RD, "result", True),
            Operand("imm", OperandKind.UNSIGNED, _IMM, "upper half"),
        ),
        "scalar",
        "scalar_lui",
        "rd = imm << 16.",
    ),
    _scalar_rri(9, "lw", OperandKind.SIGNED, "rd = 32-bit word of local memory at rs1 + imm (4-aligned)."),
    Instruction(
        "sw",
        "scu",
        _op(10),
        (
            _register("rs2", _RD, "value"),
            _register("rs1", _RS1, "base address"),
            Operand("imm", OperandKind.SIGNED, _IMM, "byte offset"),
        ),
        "scalar",
        "scalar_sw",
        "Store the 32-bit word rs2 to local memory at rs1 + imm (4-aligned).",
    ),
    Instruction(
        "cid",
        "scu",
        (*_op(11), _ZERO_RS1, _ZERO_IMM),
        (_register("rd", _RD, "core number", True),),
        "scalar",
        "scalar_cid",
        "rd = number of this core.",
    ),
    Instruction(
        "cfg",
        "scu",
        (*_op(12), _ZERO_CONFIG, _ZERO_IMM),
        (
            Operand("config", OperandKind.CONFIG, _CONFIG, "configuration register"),
            _register("rs1", _RS1, "value"),
        ),
        "scalar",
        "scalar_cfg",
        "Set a configuration register; instructions capture it when they are dispatched.",
    ),
)

_CONTROL = (
    Instruction(
        "nop", "scu", (*_op(0, 0), _ZERO_RD, _ZERO_RS1, _ZERO_RS2, _ZERO_RS3), (), "scalar", "nop", "Nothing."
    ),
    Instruction(
        "halt",
        "scu",
        (*_op(0, 1), _ZERO_RD, _ZERO_RS1, _ZERO_RS2, _ZERO_RS3),
        (),
        "scalar",
        "halt",
        "Stop this core when everything it dispatched has finished.",
    ),
    _branch(13, "beq", "rs1 == rs2"),
    _branch(14, "bne", "rs1 != rs2"),
    _branch(15, "blt", "rs1 < rs2"),
    _branch(16, "bge", "rs1 >= rs2"),
    Instruction(
        "wait",
        "scu",
        _op(17),
        (
            Operand("sem", OperandKind.SEMAPHORE, _RD, "semaphore"),
            _register("rs1", _RS1, "added to the count"),
            Operand("imm", OperandKind.UNSIGNED, _IMM, "count"),
        ),
        "scalar",
        "wait",
        "Block dispatch until semaphore >= rs1 + imm, then subtract that.",
    ),
    Instruction(
        "sigh",
        "scu",
        (*_op(18), _ZERO_RS1, _ZERO_IMM),
        (Operand("sem", OperandKind.SEMAPHORE, _RD, "semaphore of the controllers"),),
        "signal",
        "signal_hbm",
        "When everything dispatched before has finished, add 1 to this semaphore of every controller of the tile.",
    ),
    Instruction(
        "hset",
        "scu",
        (*_op(19), _ZERO_IMM),
        (
            Operand("hreg", OperandKind.UNSIGNED, _RD, "controller register"),
            _register("rs1", _RS1, "value"),
        ),
        "signal",
        "set_hbm_register",
        "Set a register of every controller of the tile (order it with sigh and the stream's wait).",
    ),
)


def _vv(funct: int, mnemonic: str, doc: str) -> list[Instruction]:
    operands = (
        _register("dst", _RD, "destination address"),
        _register("a", _RS1, "first source address"),
        _register("b", _RS2, "second source address"),
        _register("n", _RS3, "elements"),
    )
    return [
        Instruction(
            f"{mnemonic}.{t}", "vcu", _op(20, funct | bit), operands, "vector", f"{mnemonic}_{t}", doc
        )
        for t, bit in (("h", 0), ("f", 32))
    ]


def _vs(funct: int, mnemonic: str, doc: str) -> list[Instruction]:
    operands = (
        _register("dst", _RD, "destination address"),
        _register("a", _RS1, "source address"),
        _register("s", _RS2, "address of an f32 scalar"),
        _register("n", _RS3, "elements"),
    )
    return [
        Instruction(
            f"{mnemonic}.{t}", "vcu", _op(21, funct | bit), operands, "vector", f"{mnemonic}_{t}", doc
        )
        for t, bit in (("h", 0), ("f", 32))
    ]


def _vu(funct: int, mnemonic: str, doc: str, latency: str = "vector_special") -> list[Instruction]:
    operands = (
        _register("dst", _RD, "destination address"),
        _register("a", _RS1, "source address"),
        _register("n", _RS3, "elements"),
    )
    return [
        Instruction(
            f"{mnemonic}.{t}",
            "vcu",
            (*_op(22, funct | bit), _ZERO_RS2),
            operands,
            latency,
            f"{mnemonic}_{t}",
            doc,
        )
        for t, bit in (("h", 0), ("f", 32))
    ]


def _vr(funct: int, mnemonic: str, doc: str) -> list[Instruction]:
    operands = (
        _register("dst", _RD, "address of the f32 result"),
        _register("a", _RS1, "source address"),
        _register("n", _RS3, "elements"),
    )
    return [
        Instruction(
            f"{mnemonic}.{t}",
            "vcu",
            (*_op(23, funct | bit), _ZERO_RS2),
            operands,
            "vector_reduce",
            f"{mnemonic}_{t}",
            doc,
        )
        for t, bit in (("h", 0), ("f", 32))
    ]


_VECTOR = (
    *_vv(0, "vadd", "dst[i] = a[i] + b[i]."),
    *_vv(1, "vsub", "dst[i] = a[i] - b[i]."),
    *_vv(2, "vmul", "dst[i] = a[i] * b[i]."),
    *_vv(3, "vdiv", "dst[i] = a[i] / b[i]."),
    *_vv(4, "vmax", "dst[i] = max(a[i], b[i])."),
    *_vv(5, "vmin", "dst[i] = min(a[i], b[i])."),
    *_vs(0, "vadds", "dst[i] = a[i] + s."),
    *_vs(1, "vsubs", "dst[i] = a[i] - s."),
    *_vs(2, "vmuls", "dst[i] = a[i] * s."),
    *_vs(3, "vdivs", "dst[i] = a[i] / s."),
    *_vs(4, "vmaxs", "dst[i] = max(a[i], s)."),
    *_vs(5, "vmins", "dst[i] = min(a[i], s)."),
    *_vs(6, "vexps", "dst[i] = exp(a[i] - s), the numerator of a softmax."),
    *_vs(7, "vfill", "dst[i] = s; the source is not read (write the destination register twice)."),
    *_vu(0, "vmov", "dst[i] = a[i].", "vector"),
    *_vu(1, "vneg", "dst[i] = -a[i].", "vector"),
    *_vu(2, "vabs", "dst[i] = |a[i]|.", "vector"),
    *_vu(3, "vrelu", "dst[i] = max(a[i], 0).", "vector"),
    *_vu(4, "vexp", "dst[i] = exp(a[i])."),
    *_vu(5, "vsqrt", "dst[i] = sqrt(a[i])."),
    *_vu(6, "vrsqrt", "dst[i] = 1 / sqrt(a[i])."),
    *_vu(7, "vrecip", "dst[i] = 1 / a[i]."),
    *_vu(8, "vtanh", "dst[i] = tanh(a[i])."),
    *_vu(9, "vsigmoid", "dst[i] = 1 / (1 + exp(-a[i]))."),
    *_vu(10, "vsilu", "dst[i] = a[i] / (1 + exp(-a[i]))."),
    *_vu(11, "vgelu", "dst[i] = a[i] * (1 + erf(a[i] / sqrt 2)) / 2."),
    *_vu(12, "vgelut", "dst[i] = GELU by its tanh approximation."),
    *_vu(13, "verf", "dst[i] = erf(a[i])."),
    *_vu(14, "vlog", "dst[i] = ln(a[i])."),
    *_vu(15, "vcvt", ".h: f32 source to f16 destination; .f: f16 source to f32 destination.", "vector"),
    *_vr(0, "vrsum", "dst = sum of a[i]."),
    *_vr(1, "vrmax", "dst = max of a[i]; -inf for no elements."),
    *_vr(2, "vrsumsq", "dst = sum of a[i]^2."),
    Instruction(
        "vredp",
        "vcu",
        (*_op(24, 0),),
        (
            _register("dst", _RD, "f16 destination address"),
            _register("a", _RS1, "f32 partial sums"),
            _register("b", _RS2, "address of an f16 bias added in f32, or register r0 for none"),
            _register("n", _RS3, "results, a multiple of 16 or the last group cut short"),
        ),
        "vector",
        "vredp",
        "dst[16g + b] = round(sum over v < parts of a[16(g*parts + v) + b] + bias[16g + b]): HBM-PIM results to f16.",
        ("parts",),
    ),
    Instruction(
        "vrope",
        "vcu",
        (*_op(24, 1),),
        (
            _register("dst", _RD, "f16 destination address"),
            _register("a", _RS1, "f16 source address"),
            _register("b", _RS2, "f16 table: head_dim cosines, then head_dim sines"),
            _register("n", _RS3, "elements, a multiple of head_dim"),
        ),
        "vector",
        "vrope",
        "Rotary embedding, half-split: y[i] = x[i]*cos[i] - x[i+d/2]*sin[i] for i < d/2, x[i]*cos[i] + x[i-d/2]*sin[i] above.",
        ("head_dim",),
    ),
    Instruction(
        "vwsum",
        "vcu",
        (*_op(24, 2),),
        (
            _register("dst", _RD, "f16 destination address"),
            _register("a", _RS1, "f16 rows, stride_a bytes apart"),
            _register("b", _RS2, "f32 weights, one a row"),
            _register("n", _RS3, "elements a row"),
        ),
        "vector_rows",
        "vwsum",
        "dst[j] = round(sum over i < rows of b[i] * a[i][j]), rows ascending.",
        ("rows", "stride_a"),
    ),
)

_PIM = (
    Instruction(
        "pimld",
        "pim",
        (*_op(25, 0), _ZERO_RS3),
        (
            _register("row", _RD, "first array row"),
            _register("a", _RS1, "f16 source rows, stride_a bytes apart"),
            _register("n", _RS2, "rows"),
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
            _op(25, funct),
            (
                _register("dst", _RD, "f16 destination address (written by the .w forms only)"),
                _register("x", _RS1, "f16 input, depth elements"),
                _register("row", _RS2, "first array row"),
                _register("n", _RS3, "array rows"),
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
            (*_op(26, funct), _ZERO_RD, _ZERO_RS3),
            (
                _register("a", _RS1, "A, rows x depth f16, rows stride_a bytes apart"),
                _register("b", _RS2, "B, f16, rows stride_b bytes apart"),
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
        (*_op(26, 4), _ZERO_RS1, _ZERO_RS2, _ZERO_RS3),
        (_register("dst", _RD, "C, rows x cols f16, rows stride_c bytes apart"),),
        "tcu_writeback",
        "twb",
        "C[m][n] = round(acc[m][n]) for m < rows, n < cols.",
        ("rows", "cols", "stride_c"),
    ),
)

_TRANSFER = (
    Instruction(
        "hrd",
        "xfer",
        (*_op(27, 0), _ZERO_RS3),
        (
            _register("dst", _RD, "local address"),
            _register("src", _RS1, "linear HBM address in the tile (32-aligned)"),
            _register("n", _RS2, "bytes (a multiple of 2)"),
        ),
        "hbm_transfer",
        "hrd",
        "HBM to local memory.",
    ),
    Instruction(
        "hwr",
        "xfer",
        (*_op(27, 1), _ZERO_RS3),
        (
            _register("src", _RS1, "local address"),
            _register("dst", _RD, "linear HBM address in the tile (32-aligned)"),
            _register("n", _RS2, "bytes (a multiple of 2)"),
        ),
        "hbm_transfer",
        "hwr",
        "Local memory to HBM.",
    ),
    Instruction(
        "hrdb",
        "xfer",
        _op(27, 2),
        (
            _register("dst", _RD, "local address"),
            _register("row", _RS1, "DRAM row"),
            _register("column", _RS2, "bank * 32 + first column"),
            _register("n", _RS3, "columns of 32 bytes, within the row"),
        ),
        "hbm_transfer",
        "hrdb",
        "Read the same columns of one row and bank in every pseudo-channel q of pch_mask to dst + rank(q) * pch_stride, "
        "rank counting the set bits below q.",
        ("pch_mask", "pch_stride"),
    ),
    Instruction(
        "trans",
        "trans",
        (*_op(28, 0), _ZERO_RS2, _ZERO_RS3),
        (
            _register("dst", _RD, "destination, cols x rows f16, rows stride_b bytes apart"),
            _register("a", _RS1, "source, rows x cols f16, rows stride_a bytes apart"),
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
        _register("dst", _RD, "local address at the receiver"),
        _register("src", _RS1, "local address here"),
        _register("n", _RS2, "bytes (a multiple of 2; a row of a strided message)"),
    ]
    fixed: tuple[tuple[Field, int], ...] = (*_op(code), _ZERO_SEMAPHORE)
    if multicast:
        fixed += (_ZERO_RS3,)
    else:
        operands.append(_register("core", _RS3, "receiving core"))
    operands.append(Operand("sem", OperandKind.SEMAPHORE, _SEMAPHORE, "semaphore of the receiver"))
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
    "sram", 32, "r", (*_CONTROL, *_SCALAR, *_VECTOR, *_PIM, *_TENSOR, *_TRANSFER, *_NOC)
)
