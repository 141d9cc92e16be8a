"""``allocate``: addresses for buffers, configuration and scalar registers for values of the core programs.

In every ``sram.program``: each ``sram.alloc`` gets an ``address`` (buffers that are not in use at once may share
memory), ``sram.address`` becomes a constant (of two words, whatever the address) and arithmetic on constants is
folded, configuration operands become ``sram.cfg``, and every scalar gets a register (attribute ``register``, of loops
``registers``).  In every ``hbm.program`` the addresses of buffers become numbers.  What does not fit is a
:class:`TargetError` that names the buffers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64

from pimc.backends.config import expand_configuration
from pimc.backends.constants import allocate_registers
from pimc.backends.fold import erase, erase_dead, fold
from pimc.backends.memory import MemorySpace, allocate_entry
from pimc.diagnostics import InputError
from pimc.ir import hbm, sram
from pimc.ir.instruction_ops import LocalAddressAttr, number_attribute, numbers
from pimc.ir.locations import where
from pimc.ir.sram_structure import MEMORIES, AddressOp, AllocOp, ConstOp
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class AllocatePass(Pass):
    """Give buffers addresses and scalars registers.

    ``share``: let buffers that are not in use at once have the same memory; without it each has its own.
    """

    name = "allocate"
    produces = Stage.ALLOCATED
    requires = Stage.LOWERED
    share: bool = True

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        target = context.target
        spaces = {name: MemorySpace(target.memory(name).base, target.memory(name).bytes) for name in MEMORIES}
        programs = [inner for inner in module.body.block.ops if isinstance(inner, sram.ProgramOp)]
        streams = [inner for inner in module.body.block.ops if isinstance(inner, hbm.ProgramOp)]
        for program in programs:
            erase_dead(program)
        addresses: dict[sram.ProgramOp, dict[str, int]] = {}
        for entry in dict.fromkeys(program.entry.data for program in programs):
            members = [program for program in programs if program.entry.data == entry]
            addresses |= allocate_entry(
                members, streams, spaces, share=self.share, semaphore=target.cores.semaphores - 1
            )
        for program in programs:
            _resolve(program, addresses[program])
            fold(program)
            expand_configuration(program)
            allocate_registers(program, target.cores.scalar_registers, _room(program, spaces["temp"]))
        for stream in streams:
            _resolve_stream(stream, programs, addresses)


def _room(program: sram.ProgramOp, space: MemorySpace) -> range:
    """What a program leaves free of a memory, behind its buffers."""
    first = space.base
    for op in program.body.walk():
        address = op.properties.get("address") if isinstance(op, AllocOp) else None
        if isinstance(op, AllocOp) and isinstance(address, IntegerAttr):
            first = max(first, address.value.data + op.bytes.value.data)
    return range(first, space.base + space.size)


def _resolve(program: sram.ProgramOp, addresses: Mapping[str, int]) -> None:
    """Write the addresses on the buffers, and replace ``sram.address`` by constants."""
    for op in list(program.body.walk()):
        if isinstance(op, AllocOp):
            op.properties["address"] = IntegerAttr(addresses[op.sym_name.data], i64)
        elif isinstance(op, AddressOp):
            alloc = op.buffer.owner
            if not isinstance(alloc, AllocOp):
                raise InputError("sram.address needs a buffer of sram.alloc", where=where(op))
            base = addresses[alloc.sym_name.data]
            constant = ConstOp([base + offset for offset in numbers(op.offset)], alloc.sym_name.data)
            constant.location = op.location
            block = op.parent
            assert block is not None  # it is in the program
            block.insert_op_before(constant, op)
            op.result.replace_all_uses_with(constant.result)
            erase(op)


def _resolve_stream(
    stream: hbm.ProgramOp,
    programs: Sequence[sram.ProgramOp],
    addresses: Mapping[sram.ProgramOp, Mapping[str, int]],
) -> None:
    """Replace addresses of buffers by numbers: one, or one a group where the groups' cores run different
    programs.
    """
    of_core = {
        core: addresses[program]
        for program in programs
        if program.entry == stream.entry
        for core in program.core_numbers
    }
    for op in stream.body.walk():
        for name, value in op.properties.items():
            if not isinstance(value, LocalAddressAttr):
                continue
            buffer = value.buffer.data
            found = [of_core.get(group, {}).get(buffer) for group in stream.group_numbers]
            known = [address + value.offset.value.data for address in found if address is not None]
            if len(known) != len(found):
                missing = stream.group_numbers[found.index(None)]
                raise InputError(
                    f"{op.name} names buffer @{buffer}, which core {missing} does not allocate in entry "
                    f"{stream.entry.data!r}",
                    where=where(op),
                )
            op.properties[name] = number_attribute(known[0] if len(set(known)) == 1 else known)
