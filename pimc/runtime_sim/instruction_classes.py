"""Classes of core instructions, element sizes and register operands, from their table entries."""

from __future__ import annotations

from pimc.isa.spec import Instruction, OperandKind

#: Classes of core instructions, in the order of their numbers.
CLASSES = (
    "scalar", "branch", "divide", "lw", "sw", "cid", "cfg", "nop", "halt", "wait", "sigh", "hset",
    "vector_binary", "vector_scalar", "vector_fill", "vector_unary", "vector_reduce", "matrix",
    "hrd", "hwr", "hrdb", "message",
)  # fmt: skip

_SINGLE = {
    "scalar_lw": "lw", "scalar_sw": "sw", "scalar_cid": "cid", "scalar_cfg": "cfg", "nop": "nop", "halt": "halt",
    "wait": "wait", "signal_hbm": "sigh", "set_hbm_register": "hset", "hrd": "hrd", "hwr": "hwr", "hrdb": "hrdb",
}  # fmt: skip

TYPED = ("vector_binary", "vector_scalar", "vector_fill", "vector_unary", "vector_reduce")

_VECTOR_SHAPES = {
    ("dst", "a", "b", "n"): "vector_binary",
    ("dst", "a", "s", "n"): "vector_scalar",
    ("dst", "a", "n"): "vector_unary",
}


def class_of(instruction: Instruction) -> str:
    """Class of a core instruction, from its table entry."""
    name = instruction.semantics
    if name in _SINGLE:
        return _SINGLE[name]
    if name.startswith("branch_"):
        return "branch"
    if name in ("scalar_divu", "scalar_remu"):
        return "divide"
    if name.startswith("scalar_"):
        return "scalar"
    if instruction.unit == "noc":
        return "message"
    if instruction.unit == "vcu" and name[-2:] in ("_h", "_f"):
        if name[:-2] == "vfill":
            return "vector_fill"
        if instruction.latency == "vector_reduce":
            return "vector_reduce"
        return _VECTOR_SHAPES[tuple(operand.name for operand in instruction.operands)]
    return "matrix"


def element_bytes(instruction: Instruction) -> tuple[int, int]:
    """(source, destination) element size of a typed vector instruction, (2, 2) for others."""
    if class_of(instruction) not in TYPED:
        return 2, 2
    target = 4 if instruction.semantics.endswith("_f") else 2
    return (6 - target, target) if instruction.semantics.startswith("vcvt") else (target, target)


def register_mask(instruction: Instruction) -> int:
    """Bit i is set if operand i is a register that is read."""
    mask = 0
    for i, operand in enumerate(instruction.operands):
        if operand.kind is OperandKind.REGISTER and not operand.writes:
            mask |= 1 << i
    return mask
