"""Configuration registers: ``sram.cfg`` before the instructions that read them, as few as straight code
allows.

Forward through the program, each register's value is known while it is certain; an instruction sets only those
that differ. A register that all instructions of a loop body read with one value from outside the loop is set once
before the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from xdsl.ir import Block, Operation, SSAValue

from pimc.backends.order import Constant, identity, is_inside
from pimc.ir.instruction_ops import numbers
from pimc.ir.sram import INSTRUCTION_OPS, SramInstruction
from pimc.ir.sram_control import ForOp, IfOp, ProgramOp
from pimc.ir.sram_structure import ConstOp
from pimc.isa.sram import CONFIG_REGISTERS

#: What a configuration register holds: constants (one, or one a core), or a scalar value.
_Value: TypeAlias = "Constant | SSAValue"
_State: TypeAlias = dict[str, _Value]

_NAMES = {number: name for name, (number, _) in CONFIG_REGISTERS.items()}


def expand_configuration(program: ProgramOp) -> None:
    """Make ``sram.cfg`` operations of the configuration operands of all instructions, in place."""
    _block(program.body.block, {})


def _key(value: SSAValue) -> _Value:
    return identity(value) or value


def _block(block: Block, state: _State) -> None:
    for op in list(block.ops):
        if isinstance(op, ForOp):
            _loop(op, state)
        elif isinstance(op, IfOp):
            other = dict(state)
            _block(op.then_region.block, state)
            _block(op.else_region.block, other)
            _keep(state, {name for name in state if other.get(name) == state[name]})
        elif isinstance(op, SramInstruction):
            _instruction(op, state)


def _keep(state: _State, names: set[str]) -> None:
    for name in set(state) - names:
        del state[name]


def _instruction(op: SramInstruction, state: _State) -> None:
    if op.INSTRUCTION.mnemonic == "cfg":
        state[_NAMES[numbers(op.properties["config"])[0]]] = _key(op.operands[0])
        return
    if not op.config_values:
        return
    for name, value in zip(op.INSTRUCTION.config, op.config_values, strict=True):
        _set(name, value, op, state)
    op.operands = op.operands[: len(op.read_operands())]


def _set(name: str, value: SSAValue, before: Operation, state: _State) -> None:
    """Insert a ``cfg`` of ``name`` before an operation unless the register holds the value."""
    if state.get(name) == _key(value):
        return
    state[name] = _key(value)
    cfg = INSTRUCTION_OPS["cfg"].build_op([value], {"config": CONFIG_REGISTERS[name][0]}, {})
    cfg.location = before.location
    block = before.parent
    assert block is not None  # the operation is in a program
    block.insert_op_before(cfg, before)


def _loop(loop: ForOp, state: _State) -> None:
    """Registers with one value throughout the body are set before the loop; others are unknown at its head."""
    body = loop.body.block
    used: dict[str, list[SSAValue]] = {}
    for name, value in _settings(body):
        used.setdefault(name, []).append(value)
    for name, values in used.items():
        keys = {_key(value) for value in values}
        invariant = all(_is_outside(value, body) for value in values)
        if len(keys) == 1 and invariant:
            _set(name, _hoisted(values[0], loop), loop, state)
        else:
            state.pop(name, None)
    _block(body, state)
    changed = {name for name, values in used.items() if len({_key(value) for value in values}) > 1}
    inside = {name for name, values in used.items() if not all(_is_outside(value, body) for value in values)}
    _keep(state, set(state) - changed - inside)


def _settings(body: Block) -> Iterator[tuple[str, SSAValue]]:
    """(register, value) of everything in a block that sets a configuration register."""
    for op in body.walk():
        if not isinstance(op, SramInstruction):
            continue
        if op.INSTRUCTION.mnemonic == "cfg":
            yield _NAMES[numbers(op.properties["config"])[0]], op.operands[0]
        elif op.config_values:
            yield from zip(op.INSTRUCTION.config, op.config_values, strict=True)


def _is_outside(value: SSAValue, body: Block) -> bool:
    """Whether a value is a constant or comes from outside ``body``."""
    owner = value.owner
    if isinstance(owner, ConstOp):
        return True
    if isinstance(owner, Block):
        return owner is not body and not _nested(owner, body)
    return not is_inside(owner, body)


def _nested(inner: Block, outer: Block) -> bool:
    parent = inner.parent_op()
    return parent is not None and is_inside(parent, outer)


def _hoisted(value: SSAValue, loop: ForOp) -> SSAValue:
    """The value, or before the loop a new constant of the same numbers."""
    owner, found = value.owner, identity(value)
    if found is None or not isinstance(owner, ConstOp) or not is_inside(owner, loop.body.block):
        return value
    new = ConstOp(found.values, found.origin or None)
    new.location = loop.location
    block = loop.parent
    assert block is not None  # the loop is in a program
    block.insert_op_before(new, loop)
    return new.result
