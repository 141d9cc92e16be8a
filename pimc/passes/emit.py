"""``emit``: instruction words of the core programs and the streams.

Every ``sram.program`` becomes an ``sram.code`` and every ``hbm.program`` an ``hbm.code``: words, source locations,
ports. Programs must have been through ``allocate``.  One that is longer than the target's instruction memory is a
TargetError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import override
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute, Operation

from pimc.backends.assemble import check_size
from pimc.backends.encode import encode_program, encode_stream
from pimc.diagnostics import InputError
from pimc.ir import hbm, sram
from pimc.ir.code_ops import Code, HbmCodeOp, SramCodeOp
from pimc.ir.instruction_ops import numbers, numbers_attribute
from pimc.ir.locations import where, with_location
from pimc.ir.sram_structure import AllocOp, PortOp
from pimc.ir.stages import Stage
from pimc.isa.codec import word_dtype
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import DTYPE_BYTES
from pimc.isa.sram import SRAM_ISA
from pimc.passes.base import Pass, PassContext
from pimc.targets import Target


@dataclass(frozen=True)
class EmitPass(Pass):
    """Encode programs and streams.

    ``locations``: keep the source location of every word, for errors and disassembly (about as long as the code).
    """

    name = "emit"
    produces = Stage.EMITTED
    requires = Stage.ALLOCATED
    locations: bool = True

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        block = module.body.block
        for op in list(block.ops):
            code: Operation
            if isinstance(op, sram.ProgramOp):
                code = _program(op, context.target, keep=self.locations)
            elif isinstance(op, hbm.ProgramOp):
                code = _stream(op, context.target, keep=self.locations)
            else:
                continue
            block.insert_op_before(with_location(code, op), op)
            block.erase_op(op)


def without_locations(code: Code) -> Code:
    """The same words, of unknown origin."""
    return replace(code, table=(), index=np.full_like(code.index, -1))


def _program(op: sram.ProgramOp, target: Target, *, keep: bool) -> SramCodeOp:
    code = encode_program(op) if keep else without_locations(encode_program(op))
    capacity = target.memory("instruction").bytes // word_dtype(SRAM_ISA).itemsize
    check_size(code, capacity, "core program", target.name)
    return SramCodeOp.make(code, _ports(op))


def _stream(op: hbm.ProgramOp, target: Target, *, keep: bool) -> HbmCodeOp:
    code = encode_stream(op) if keep else without_locations(encode_stream(op))
    capacity = target.memory("stream").bytes // word_dtype(HBM_ISA).itemsize
    check_size(code, capacity, "controller stream", target.name)
    return HbmCodeOp.make(code)


def _ports(program: sram.ProgramOp) -> Iterator[Attribute]:
    """The ports of a program with the pieces that its cores hold."""
    cores = program.core_numbers
    pieces: dict[tuple[str, str], list[int]] = {}
    heads: dict[tuple[str, str], PortOp] = {}
    for op in program.body.walk():
        if not isinstance(op, PortOp):
            continue
        key = (op.direction.data, op.port.data)
        known = heads.setdefault(key, op)
        if (known.dtype, known.shape, known.range) != (op.dtype, op.shape, op.range):
            raise InputError(f"port {op.port.data!r} has two types, shapes or ranges", where=where(op))
        pieces.setdefault(key, []).extend(_pieces(op, cores))
    for (direction, name), found in pieces.items():
        head = heads[direction, name]
        yield DictionaryAttr(
            {
                "name": StringAttr(name),
                "direction": StringAttr(direction),
                "dtype": head.dtype,
                "shape": head.shape,
                "pieces": numbers_attribute(found),
                **({} if head.range is None else {"range": head.range}),
            }
        )


def _pieces(op: PortOp, cores: Sequence[int]) -> Iterator[int]:
    """Core, byte address, element offset and elements of each core's piece, one after the other."""
    alloc = op.buffer.owner
    if not isinstance(alloc, AllocOp) or alloc.address is None:
        raise InputError(
            f"the buffer of port {op.port.data!r} has no address", hint="run allocate before emit", where=where(op)
        )
    start, offset, count = (_spread(numbers(v), len(cores)) for v in (op.start, op.offset, op.count))
    for index, core in enumerate(cores):
        if count[index] <= 0:
            continue
        if start[index] + count[index] * DTYPE_BYTES[op.dtype.data] > alloc.bytes.value.data:
            raise InputError(f"port {op.port.data!r} reaches behind its buffer on core {core}", where=where(op))
        yield from (core, alloc.address.value.data + start[index], offset[index], count[index])


def _spread(values: Sequence[int], count: int) -> Sequence[int]:
    return tuple(values) * count if len(values) == 1 else values
