"""Fields, fixed bits and configuration registers that the SRAM-PIM core's instruction tables share."""

from __future__ import annotations

from pimc.isa.spec import Field, Operand, OperandKind

OPCODE = Field("opcode", 26, 6)
RD = Field("rd", 21, 5)
RS1 = Field("rs1", 16, 5)
RS2 = Field("rs2", 11, 5)
RS3 = Field("rs3", 6, 5)
FUNCT = Field("funct", 0, 6)
IMM = Field("imm16", 0, 16)
SHIFT = Field("shift", 0, 5)
SEMAPHORE = Field("sem", 0, 5)
CONFIG = Field("config", 21, 5)
CONTROLLER_SEMAPHORE = Field("controller_sem", 21, 4)

#: Configuration registers, by name, with the number ``cfg`` takes and what they hold.
CONFIG_REGISTERS: dict[str, tuple[int, str]] = {
    "head_dim": (0, "elements a head, for vrope"),
    "rows": (1, "rows of a strided operation: vwsum (rows summed), trans (source rows), tmm/twb/tld (M)"),
    "cols": (2, "columns of a strided operation: trans (source columns), tmm/twb/tld (N)"),
    "depth": (3, "K of tmm; active lanes of pimld and pimmv (<= 128)"),
    "stride_a": (4, "bytes between source rows: vwsum, trans, pimld; source elements: vmovs; rows of A: tmm"),
    "stride_b": (5, "bytes between destination rows: trans; destination elements: vmovs; rows of B: tmm"),
    "stride_c": (6, "bytes between rows of C for twb and tld"),
    "lane": (7, "first lane that pimld writes"),
    "parts": (8, "partial sums a result that vredp adds"),
    "group_base": (9, "first core of a multicast group"),
    "group_size": (10, "cores of a multicast group"),
    "pch_mask": (11, "pseudo-channels of the tile that hrdb reads, bit q for pseudo-channel q"),
    "pch_stride": (12, "bytes in local memory between the pieces of consecutive pseudo-channels, hrdb"),
    "message_rows": (13, "rows of a strided message (nsend2, nmcast2)"),
    "message_src_stride": (14, "bytes between the rows of a strided message at the sender"),
    "message_dst_stride": (15, "bytes between the rows of a strided message at the receiver"),
    "vector_rows": (16, "rows of a many-rows vector instruction (.r)"),
    "vector_dst_stride": (17, "bytes between the rows of dst of a many-rows vector instruction"),
    "vector_a_stride": (18, "bytes between the rows of a of a many-rows vector instruction; may be 0 or negative"),
    "vector_b_stride": (19, "bytes between the rows of b or s of a many-rows vector instruction, likewise"),
}


def register(name: str, field: Field, doc: str, writes: bool = False) -> Operand:
    """A scalar register operand."""
    return Operand(name, OperandKind.REGISTER, field, doc, writes)


def op(code: int, funct: int | None = None) -> tuple[tuple[Field, int], ...]:
    """The fixed opcode, and the fixed function code where the class has one."""
    return ((OPCODE, code),) if funct is None else ((OPCODE, code), (FUNCT, funct))


ZERO_RD = (RD, 0)
ZERO_RS1 = (RS1, 0)
ZERO_RS2 = (RS2, 0)
ZERO_RS3 = (RS3, 0)
ZERO_IMM = (IMM, 0)
ZERO_SHIFT = (Field("zero5", 5, 11), 0)
ZERO_SEMAPHORE = (Field("zero5", 5, 1), 0)
ZERO_CONTROLLER_SEMAPHORE = (Field("zero25", 25, 1), 0)
