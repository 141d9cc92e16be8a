"""Scalar arithmetic on constants, once addresses are known: folding, cheaper instructions, dead values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import Rewriter

from pimc.backends.order import Constant, ProgramOrder, identity
from pimc.ir.instruction_ops import numbers
from pimc.ir.sram import INSTRUCTION_OPS, SramInstruction
from pimc.ir.sram_control import ProgramOp
from pimc.ir.sram_structure import AddressOp, ConstOp

_MASK = (1 << 32) - 1


def signed(value: int) -> int:
    """The 32-bit two's-complement number of the low bits of ``value``."""
    value &= _MASK
    return value - (1 << 32) if value >> 31 else value


def _shift(value: int) -> int:
    return value & 31


_FOLD: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "add": lambda a, b: a + b,
        "addi": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "and": lambda a, b: a & b,
        "andi": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "ori": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
        "sll": lambda a, b: a << _shift(b),
        "slli": lambda a, b: a << _shift(b),
        "srl": lambda a, b: (a & _MASK) >> _shift(b),
        "srli": lambda a, b: (a & _MASK) >> _shift(b),
        "sra": lambda a, b: a >> _shift(b),
        "srai": lambda a, b: a >> _shift(b),
        "slt": lambda a, b: int(a < b),
        "sltu": lambda a, b: int((a & _MASK) < (b & _MASK)),
        "min": min,
        "max": max,
    }
)


def erase(op: Operation) -> None:
    """Take an operation without uses out of its block."""
    Rewriter.erase_op(op)


def fold(program: ProgramOp) -> None:
    """Fold constants, replace instructions by ones with immediates, and erase dead scalar values, in place."""
    for op in ProgramOrder.of(program.body.block).operations:
        if isinstance(op, SramInstruction) and op.results:
            _fold_one(op)
    erase_dead(program)


def erase_dead(program: ProgramOp) -> None:
    """Erase scalar values that nothing uses."""
    for op in reversed(ProgramOrder.of(program.body.block).operations):
        pure = isinstance(op, ConstOp | AddressOp) or (
            isinstance(op, SramInstruction) and bool(op.results) and op.INSTRUCTION.mnemonic != "lw"
        )
        if (
            pure
            and not op.results[0].uses
            and not (isinstance(op, SramInstruction) and op.INSTRUCTION.mnemonic in ("divu", "remu"))
        ):
            erase(op)


def _fold_one(op: SramInstruction) -> None:
    mnemonic = op.INSTRUCTION.mnemonic
    known = [identity(value) for value in op.operands]
    if mnemonic in _FOLD and all(found is not None for found in known):
        operands = [found for found in known if found is not None]
        if len(operands) == 1:
            operands.append(Constant("", numbers(op.properties["imm"])))
        left, other = operands
        origin = _origin(mnemonic, left, other)
        _replace(op, ConstOp(_apply(_FOLD[mnemonic], left.values, other.values), origin))
        return
    if mnemonic in ("add", "mul") and known[0] is not None:
        op.operands = (op.operands[1], op.operands[0])
        known.reverse()
    right = _single(known[1]) if len(known) > 1 else _immediate(op)
    if right is not None:
        _cheaper(op, mnemonic, op.operands[0], right)


def _origin(mnemonic: str, left: Constant, right: Constant) -> str | None:
    """Where the result comes from; the same for a buffer's address with an offset as for the buffer's."""
    if not left.origin and not right.origin:
        return None
    if mnemonic in ("add", "addi") and not (left.origin and right.origin):
        return left.origin or right.origin
    texts = (found.origin or " ".join(map(str, found.values)) for found in (left, right))
    return f"{mnemonic}({', '.join(texts)})"


def _apply(function: Callable[[int, int], int], a: Sequence[int], b: Sequence[int]) -> list[int]:
    count = max(len(a), len(b))
    pairs = zip(_spread(a, count), _spread(b, count), strict=True)
    return [signed(function(signed(x), signed(y))) for x, y in pairs]


def _spread(values: Sequence[int], count: int) -> Sequence[int]:
    return tuple(values) * count if len(values) == 1 else values


def _single(found: Constant | None) -> int | None:
    """The number, if it is one for all cores and plain."""
    return signed(found.values[0]) if found is not None and len(found.values) == 1 and not found.origin else None


def _immediate(op: SramInstruction) -> int | None:
    imm = op.properties.get("imm")
    return imm.value.data if isinstance(imm, IntegerAttr) else None


def _cheaper(op: SramInstruction, mnemonic: str, left: SSAValue, right: int) -> None:
    """Replace ``left op right`` with a constant right by the left value or an instruction with an immediate."""
    if mnemonic in _NEUTRAL and right == _NEUTRAL[mnemonic]:
        op.results[0].replace_all_uses_with(left)
        erase(op)
    elif mnemonic == "mul" and right == 0:
        _replace(op, ConstOp(0))
    elif mnemonic == "mul" and right > 0 and right & (right - 1) == 0:
        _with_immediate(op, "slli", left, right.bit_length() - 1)
    elif mnemonic in ("add", "sub"):
        _with_immediate(op, "addi", left, right if mnemonic == "add" else -right)
    elif mnemonic in ("sll", "srl", "sra"):
        _with_immediate(op, f"{mnemonic}i", left, _shift(right))
    elif mnemonic in ("and", "or"):
        _with_immediate(op, f"{mnemonic}i", left, right)


#: Right operands that leave the left one as it is.
_NEUTRAL: Mapping[str, int] = MappingProxyType(
    {"add": 0, "sub": 0, "addi": 0, "mul": 1, "or": 0, "ori": 0, "xor": 0, "slli": 0, "srli": 0, "srai": 0, "divu": 1}
)


def _with_immediate(op: SramInstruction, mnemonic: str, left: SSAValue, immediate: int) -> None:
    new = INSTRUCTION_OPS[mnemonic]
    field = new.immediate_operands()[0]
    if field.minimum <= immediate <= field.maximum:
        _replace(op, new.build_op([left], {"imm": immediate}, {}))


def _replace(op: SramInstruction, new: Operation) -> None:
    new.location = op.location
    block = op.parent
    assert block is not None  # only operations of a program are folded
    block.insert_op_before(new, op)
    op.results[0].replace_all_uses_with(new.results[0])
    erase(op)
