"""Loops over rows: operations whose operands or results do not fit local memory work on blocks of their rows.

A chain of operations that all work row by row shares a loop, so that only what others need goes to DRAM: each of its
values is a block of rows in the loop's body, an ordinary tensor.  Weights stream again for each block, so that blocks
are those of least estimated time that fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from xdsl.dialects import scf
from xdsl.dialects.arith import ConstantOp
from xdsl.dialects.builtin import IndexType, IntegerAttr, TensorType
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from pimc.backends.lower.choices import choice_of
from pimc.backends.lower.matrix_unit import block_of, scratch_bytes
from pimc.ir import nn, pim
from pimc.ir.layout import DRAM, in_memory, is_local, layout_of
from pimc.ir.locations import with_location
from pimc.ir.nn.layouts import slide
from pimc.ir.nn.space import Access, Space
from pimc.ir.pim.values import run_cut, tile_type
from pimc.passes.gemm_blocks import BUFFERS, best_loops, least_bytes
from pimc.passes.held import Held, bytes_of, local_bytes
from pimc.passes.machine import Machine
from pimc.passes.relayout import BY_PARTS


def gemm_need(machine: Machine, op: Operation, rows: int | None = None) -> int:
    """The least bytes of buffers that an operation on so many rows (None: its own) needs beside its values."""
    if not isinstance(op, pim.GemmOp) or op.layout is None:
        return 0
    count = prod(nn.tensor_of(op.x).get_shape()[:-1]) if rows is None else rows
    unit = choice_of(op, machine.target).unit
    cut, block = layout_of(op.x.type) is not None, block_of(machine.target, unit)
    return least_bytes(block, op.layout.layout, count, cut) + scratch_bytes(machine.target, unit)


@dataclass(frozen=True)
class Rows:
    """The rows that a chain goes over: the leading dimensions of its tensors, the one that is cut into blocks, and the
    runs of that, (groups, rows of a group).
    """

    lead: tuple[int, ...]
    dim: int
    groups: tuple[int, int]

    def tile(self, type_: TensorType[Attribute], block: int) -> TensorType[Attribute]:
        """The type of a block of a value's rows."""
        return tile_type(in_memory(type_, DRAM), self.dim, self.groups, block)

    def has(self, value: SSAValue) -> bool:
        """Whether a computed value has these rows."""
        type_ = value.type
        stored = isinstance(value.owner, nn.ParamOp | nn.ConstantOp)
        computed = isinstance(type_, TensorType) and type_.get_num_dims() > 1 and not stored
        return computed and nn.tensor_of(value).get_shape()[:-1] == self.lead

    def in_block(self, block: int) -> int:
        """All rows of a block."""
        return prod(self.lead) // self.lead[self.dim] * self.groups[0] * block


def rows_of(op: Operation) -> Rows | None:
    """The rows that an operation goes over by its largest result or operand; None where it has none."""
    values = [v for v in (*op.results, *op.operands) if isinstance(v.type, TensorType) and v.type.get_num_dims() > 1]
    computed = [v for v in values if not isinstance(v.owner, nn.ParamOp)]
    if not computed:
        return None
    shape = nn.tensor_of(max(computed, key=local_bytes)).get_shape()
    lead = shape[:-1]
    for value in computed:
        found = _run_cut(value, len(lead)) if nn.tensor_of(value).get_shape()[:-1] == lead else None
        if found is not None:
            return Rows(lead, *found)
    dim = max(range(len(lead)), key=lambda d: lead[d])
    return Rows(lead, dim, (1, lead[dim]))


def _run_cut(value: SSAValue, rank: int) -> tuple[int, tuple[int, int]] | None:
    """The leading dimension that is cut into one run a core, and its runs."""
    layout = layout_of(value.type)
    for dim, shard in (layout.cuts if layout is not None else {}).items():
        first = shard.shard_rounds[0]
        if dim < rank and shard == run_cut((first.cores, first.per_core)):
            return dim, (first.cores, first.per_core)
    return None


def works_by_rows(op: Operation, rows: Rows) -> bool:
    """Whether an operation gives the same rows of its result from some rows of its operands alone."""
    values = [value for value in (*op.operands, *op.results) if rows.has(value)]
    made = op.results and all(rows.has(result) for result in op.results)
    if not made or not all(_is_blockable(value, rows) for value in values):
        return False
    if isinstance(op, pim.GemmOp):
        return rows.has(op.x)
    if isinstance(op, pim.AllToAllOp | pim.AllGatherOp):
        return True
    return isinstance(op, nn.NnOp) and isinstance(op, BY_PARTS) and _is_parallel(op, rows)


def _is_parallel(op: nn.NnOp, rows: Rows) -> bool:
    """Whether the rows are a parallel dimension of the operator's space, which no other index names."""
    space = op.space()
    (result,) = space.results
    name = _named_alone(space, result, rows.dim)
    for operand, access in zip(op.operands, space.operands, strict=True):
        if access is None or name is None:
            return False
        named = [dim for dim, index in enumerate(access.indices) if name in {term for term, _ in index.terms}]
        if rows.has(operand) != bool(named):
            return False
        if named and (named != [rows.dim] or _named_alone(space, access, rows.dim) != name):
            return False
    return name is not None


def _named_alone(space: Space, access: Access, dim: int) -> str | None:
    """The parallel dimension of a space that is all of a tensor's index along ``dim``; None if there is none."""
    along = slide(space, access, dim)
    if along is None or (along.factor, along.low, along.high) != (1, 0, 0):
        return None
    return along.name if space.dim(along.name).size == access.shape[dim] else None


def _is_blockable(value: SSAValue, rows: Rows) -> bool:
    """Whether blocks of the value's rows are runs: it is cut into the runs, by features, or whole."""
    layout = layout_of(value.type)
    cuts = layout.cuts if layout is not None else {}
    if not is_local(value.type):
        return False
    if rows.dim in cuts:
        return len(cuts) == 1 and _run_cut(value, len(rows.lead)) == (rows.dim, rows.groups)
    return set(cuts) <= {len(rows.lead)} and prod(rows.groups) == rows.lead[rows.dim]


@dataclass
class Chain:
    """Operations of a block, one behind the other, that share a loop over rows."""

    machine: Machine
    held: Held
    ops: list[Operation]
    rows: Rows

    @cached_property
    def inputs(self) -> list[SSAValue]:
        """The values with rows that the chain takes, in the order of their first use."""
        made = {result for op in self.ops for result in op.results}
        used = (value for op in self.ops for value in op.operands)
        return list(dict.fromkeys(value for value in used if self.rows.has(value) and value not in made))

    @cached_property
    def outputs(self) -> list[SSAValue]:
        """The values that others need."""
        own = set(self.ops)
        return [
            result for op in self.ops for result in op.results if any(use.operation not in own for use in result.uses)
        ]

    @cached_property
    def beside(self) -> int:
        """Bytes that are held throughout the loop, but for the values that the chain goes over."""
        fixed = {value for op in self.ops for value in op.operands if not self.rows.has(value)}
        held = self.held.beside(self.ops[-1], set(fixed)) - set(self.inputs) - {r for o in self.ops for r in o.results}
        return bytes_of(frozenset(held))

    def peaks(self, block: int) -> Iterator[tuple[Operation, int]]:
        """Bytes of the blocks of rows that are there while each operation runs."""
        last = {value: index for index, op in enumerate(self.ops) for value in op.operands}
        first: dict[SSAValue, int] = {}
        for index, op in enumerate(self.ops):
            for value in (*op.operands, *op.results):
                first.setdefault(value, index)
        values = [value for value in first if self.rows.has(value)]
        sizes = {value: type_bytes(self.rows.tile(nn.tensor_of(value), block)) for value in values}
        for index, op in enumerate(self.ops):
            yield op, sum(sizes[v] for v in values if first[v] <= index <= last.get(v, first[v]))

    def time(self, block: int, room: int) -> int | None:
        """Estimated cycles of the chain's GEMMs in all blocks; None where a block does not fit ``room`` bytes."""
        total = 0
        for op, peak in self.peaks(block):
            left = room - self.beside - peak
            if left < 0:
                return None
            if isinstance(op, pim.GemmOp):
                assert op.layout is not None  # the pass runs behind layout
                _, times = best_loops(self.machine, op, op.layout.layout, self.rows.in_block(block), left, BUFFERS)
                if times is None:
                    return None
                total += times[0]
        return total * -(-self.rows.groups[1] // block)

    def best_block(self, room: int) -> int | None:
        """The block of least time that fits; of blocks that take the same time the largest."""
        most = self.rows.groups[1]
        sizes = {-(-most // parts) for parts in range(1, 17)} | {1 << i for i in range(most.bit_length())}
        timed = [(time, -size) for size in sizes if (time := self.time(size, room)) is not None]
        return -min(timed)[1] if timed else None

    def build(self, block: int) -> scf.ForOp:
        """Replace the operations by a loop over blocks of rows."""
        at, rows = self.ops[0], self.rows
        sources = {value: spilled(value) for value in self.inputs}
        bounds = [ConstantOp(IntegerAttr(n, IndexType())) for n in (0, rows.groups[1], block)]
        homes = [pim.EmptyOp(in_memory(nn.tensor_of(value), DRAM)) for value in self.outputs]
        body = Block(arg_types=[IndexType(), *(home.output.type for home in homes)])
        lower, upper, step = (bound.result for bound in bounds)
        loop = scf.ForOp(lower, upper, step, [home.output for home in homes], body)
        new = [with_location(op, at) for op in (*bounds, *homes, loop)]
        self._fill_body(body, sources, block)
        for op in self.ops:
            for value in op.operands:
                owner = value.owner
                if owner not in self.ops and isinstance(owner, Operation) and at.is_before_in_block(owner):
                    owner.detach()  # a weight or a constant
                    Rewriter.insert_op(owner, InsertPoint.before(at))
        for value, result in zip(self.outputs, loop.results, strict=True):
            for user in list(dict.fromkeys(use.operation for use in value.uses)):
                if user not in self.ops:
                    fill_before(user, value, result)
        Rewriter.insert_op(new, InsertPoint.before(at))
        for op in reversed(self.ops):
            Rewriter.erase_op(op)
        return loop

    def _fill_body(self, body: Block, sources: dict[SSAValue, SSAValue], block: int) -> None:
        rows, known = self.rows, dict[SSAValue, SSAValue]()
        homes = dict(zip(self.outputs, body.args[1:], strict=True))
        for op in self.ops:
            for value in dict.fromkeys(op.operands):
                if value in sources and value not in known:
                    read = pim.ReadOp(sources[value], body.args[0], rows.dim, rows.groups, block)
                    body.add_op(with_location(read, op))
                    known[value] = read.output
            made = op.clone(known)
            body.add_op(with_location(made, op))
            for old, result in zip(op.results, made.results, strict=True):
                Rewriter.replace_value_with_new_type(result, rows.tile(nn.tensor_of(old), block))
                known[old] = made.results[old.index]
                if old in homes:
                    write = pim.WriteOp(known[old], homes[old], body.args[0], rows.dim, rows.groups)
                    body.add_op(with_location(write, op))
                    homes[old] = write.output  # type: ignore[assignment]
        body.add_op(with_location(scf.YieldOp(*homes.values()), self.ops[-1]))


def type_bytes(type_: TensorType[Attribute]) -> int:
    """Bytes of a core's part of a value of this type."""
    return local_bytes(Block(arg_types=[type_]).args[0])


def spilled(value: SSAValue) -> SSAValue:
    """A value in DRAM: written right behind its definition, unless it is there."""
    if isinstance(value.owner, pim.FillOp):
        return value.owner.input
    for use in value.uses:
        if isinstance(use.operation, pim.SpillOp):
            return use.operation.output
    spill = pim.SpillOp(value)
    if isinstance(value.owner, Block):
        block = value.owner
        parent, first = block.parent_op(), block.first_op
        assert parent is not None  # a block of a function
        with_location(spill, parent)
        Rewriter.insert_op(spill, InsertPoint.at_end(block) if first is None else InsertPoint.before(first))
    else:
        Rewriter.insert_op(with_location(spill, value.owner), InsertPoint.after(value.owner))
    return spill.output


def fill_before(user: Operation, value: SSAValue, source: SSAValue) -> None:
    """Let an operation take a value from DRAM; attention without a cache reads keys and values by itself."""
    layout = layout_of(source.type)
    reads = isinstance(user, pim.AttentionFullOp) and value not in (user.q, user.mask)
    if reads and layout is not None and list(layout.cuts) == [2]:
        user.operands = [source if operand is value else operand for operand in user.operands]
        return
    fill = with_location(pim.FillOp(source), user)
    Rewriter.insert_op(fill, InsertPoint.before(user))
    user.operands = [fill.output if operand is value else operand for operand in user.operands]


def chains(machine: Machine, held: Held, block: Block, room: int) -> Iterator[Chain]:
    """The chains of a block with an operation that does not fit ``room`` bytes, the first first."""
    ops = [op for op in block.ops if not isinstance(op, nn.ParamOp | nn.ConstantOp | ConstantOp)]
    for index, op in enumerate(ops):
        own = rows_of(op) if _is_large(machine, op, room) else None
        if own is None:
            continue
        near = {found for other in ops if (found := rows_of(other)) is not None and found.lead == own.lead}
        possible = [
            Chain(machine, held, _around(machine, ops, index, rows, room), rows)
            for rows in sorted({own, *near}, key=lambda rows: (rows.dim, rows.groups))
            if works_by_rows(op, rows)
        ]
        if possible:
            yield max(possible, key=lambda chain: len(chain.ops))


def _is_large(machine: Machine, op: Operation, room: int) -> bool:
    own = bytes_of(frozenset((*op.operands, *op.results)))
    return own > room or (isinstance(op, pim.GemmOp) and own + gemm_need(machine, op) > room)


def _around(machine: Machine, ops: Sequence[Operation], index: int, rows: Rows, room: int) -> list[Operation]:
    """The operations around one that work by the same rows; at the ends none whose weights would be read again."""
    first, last = index, index
    while first and works_by_rows(ops[first - 1], rows):
        first -= 1
    while last + 1 < len(ops) and works_by_rows(ops[last + 1], rows):
        last += 1
    fixed = [
        place
        for place in range(first, last + 1)
        if isinstance(ops[place], pim.GemmOp) and not _is_large(machine, ops[place], room)
    ]
    large = [place for place in range(first, last + 1) if _is_large(machine, ops[place], room)]
    first = max([first, *(place + 1 for place in fixed if place < large[0])])
    last = min([last, *(place - 1 for place in fixed if place > large[-1])])
    return list(ops[first : last + 1])
