"""``partition``: cut the work over the cores, ``nn`` to ``pim``.

Projections to queries, keys and values, and attention without a cache, are cut head-wise by Algorithm 1 of the HPIM
paper (:mod:`pimc.passes.algorithm1`), the heads of cached attention by time (:mod:`pimc.passes.head_rounds`); other
linear layers tensor-wise, in equal blocks of features.  Linear layers that share their input become one operation.
Operators that work row by row, or element by element, stay on parts of their operands where that is faster; changes of
layout are operations of their own, each made once (:mod:`pimc.passes.relayout`).  Results of an entry point stay cut:
the host reads pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from typing_extensions import override
from xdsl.dialects import func, scf
from xdsl.dialects.builtin import (
    DenseArrayBase,
    FloatAttr,
    FunctionType,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    f32,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from pimc.backends.lower.choices import choice_of
from pimc.diagnostics import InputError, UsageError
from pimc.ir import nn, pim
from pimc.ir.layout import LayoutAttr, ShardAttr, layout_of, with_layout
from pimc.ir.locations import where, with_location
from pimc.ir.signature import is_entry
from pimc.ir.stages import Stage
from pimc.passes.algorithm1 import feature_shard, head_rounds, rounds_shard, tensor_shard
from pimc.passes.annotate import BYTES, FLOPS, INTENSITY
from pimc.passes.attention_grid import AttentionSizes, best_grid
from pimc.passes.base import Pass, PassContext
from pimc.passes.conv_cut import cut_conv
from pimc.passes.fusion import LinearGroup, find_groups, weight_param
from pimc.passes.head_rounds import best_rounds
from pimc.passes.machine import Machine
from pimc.passes.relayout import BY_PARTS, Relayout, fits

SHARD_REASON = "pim.partition"
#: A cut input of a GEMM larger than this part of the activation memory is not made whole, but gathered by rows.
GATHER_SHARE = 4
#: An input larger than this part of the activation memory is cut over the cores where it comes in.
INPUT_SHARE = 2


@dataclass(frozen=True)
class PartitionPass(Pass):
    """Cut every operation over the cores.

    ``algorithm``: ``paper`` (head-wise Q, K, V and attention; the rest tensor-wise) or ``tensor`` (all
    projections tensor-wise).  ``rounds``: the heads of cached attention in rounds of least estimated ``time`` with
    ``context`` cached positions (not the size of the cache: programs do not depend on it), or by Algorithm 1
    (``paper``).  ``replicate_limit``: a table that positions index is copied to every tile if a row
    has up to this many bytes (not the table: programs do not depend on the number of positions).
    """

    name = "partition"
    produces = Stage.PARTITIONED
    algorithm: str = "paper"
    rounds: str = "time"
    context: int = 1024
    replicate_limit: int = 2048

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        if self.algorithm not in ("paper", "tensor"):
            raise UsageError(f"unknown partition algorithm {self.algorithm!r}", hint="algorithms are paper and tensor")
        if self.rounds not in ("time", "paper"):
            raise UsageError(f"unknown partition rounds {self.rounds!r}", hint="rounds are time and paper")
        if self.context < 1:
            raise UsageError(f"partition context {self.context} is no number of positions", hint="context=1024")
        machine = Machine(context.target)
        groups = find_groups(module)
        heads = _head_counts(module) if self.algorithm == "paper" else {}
        functions = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp) and op.body.blocks}
        called = {op.callee.string_value() for op in module.walk() if isinstance(op, func.CallOp)}
        cached = [op for op in module.walk() if isinstance(op, nn.AttentionOp)]
        shared = _Module(machine, groups, heads, self, functions)
        units = [choice_of(op, machine.target).unit for op in cached if nn.tensor_of(op.q).get_shape()[1] == 1]
        shared.attention_unit = units[0] if units else "sram_pim" if machine.domain("sram_pim") else "systolic"
        shared.readers.extend((op.k, op.v, shared.rounds_of(op)[0]) for op in cached)
        for name, function in functions.items():
            if name not in called:
                _FunctionPartition(shared, Relayout(machine)).run(function)
        for new in module.walk():
            reason = new.attributes.get(SHARD_REASON)
            if isinstance(reason, StringAttr):
                context.explain(new, reason.data)


def _head_counts(module: ModuleOp) -> dict[nn.LinearOp, tuple[int, int]]:
    """(heads, head_dim) of every linear layer whose result is a query, key or value."""
    found: dict[nn.LinearOp, tuple[int, int]] = {}
    writes = [op for op in module.walk() if isinstance(op, nn.CacheWriteOp)]
    for op in module.walk():
        if isinstance(op, nn.AttentionOp):
            dim = op.head_dim.value.data
            _mark(op.q, op.heads.value.data, dim, found)
            for write in writes:
                if write.cache in (op.k, op.v):
                    _mark(write.x, op.kv_heads.value.data, dim, found)
    return found


def _mark(value: SSAValue, heads: int, dim: int, found: dict[nn.LinearOp, tuple[int, int]]) -> None:
    """Follow ``value`` back through operators that keep its features to the linear layer that made it."""
    while isinstance(owner := value.owner, nn.RopeOp | nn.UnaryOp | nn.BinaryOp | nn.CastOp):
        value = owner.operands[0]
    if isinstance(owner, nn.LinearOp) and nn.tensor_of(owner.weight).get_shape()[0] == heads * dim:
        found[owner] = (heads, dim)


@dataclass
class _Module:
    """What the functions of a module share: who reads a cache, and the layouts that called functions were given."""

    machine: Machine
    groups: dict[nn.LinearOp, LinearGroup]
    heads: dict[nn.LinearOp, tuple[int, int]]
    options: PartitionPass
    functions: Mapping[str, func.FuncOp]
    done: dict[str, list[LayoutAttr | None]] = field(default_factory=dict)
    attention_unit: str = "sram_pim"
    """The kind of unit that attention of one token is on; it decides the rounds, which all entries share."""
    readers: list[tuple[SymbolRefAttr, SymbolRefAttr, tuple[pim.HeadRound, ...]]] = field(default_factory=list)

    def rounds_of(self, op: nn.AttentionOp) -> tuple[tuple[pim.HeadRound, ...], str]:
        """The rounds of an attention's KV heads, and why; all that share a cache have the same."""
        heads, kv_heads, dim = (a.value.data for a in (op.heads, op.kv_heads, op.head_dim))
        what = f"{kv_heads} KV heads of {dim}"
        if self.options.rounds == "paper":
            return head_rounds(kv_heads, self.machine.channels, self.machine.cores), f"by Algorithm 1: {what}"
        context = self.options.context

        def time(cores: int) -> int:
            return self.machine.attention_round_fs(-(-context // cores), heads // kv_heads, dim, self.attention_unit)

        rounds = best_rounds(kv_heads, self.machine.cores, time)
        groups = ", ".join(f"{r.heads} on groups of {r.cores_per_head} cores" for r in rounds)
        return rounds, f"by the least estimated time at {context} positions: {what}, {groups}"


@dataclass
class _FunctionPartition:
    """One walk over a function, in program order; types of values say how they are cut."""

    module: _Module
    layouts: Relayout
    written: dict[tuple[Attribute, SSAValue], nn.CacheWriteOp] = field(default_factory=dict)

    def run(self, function: func.FuncOp) -> None:
        """Rewrite ``function``; its types follow what it takes and returns."""
        if is_entry(function):
            self.cut_inputs(function.body.block)
        self.block(function.body.block, is_entry(function))
        for write in list(self.written.values()):
            self.written_for_others(write)
        returned = function.get_return_op()
        outputs = [] if returned is None else [value.type for value in returned.operands]
        function.function_type = FunctionType.from_lists([a.type for a in function.body.block.args], outputs)

    def cut_inputs(self, block: Block) -> None:
        """The host gives each core a part of an input that would take too much of its memory whole."""
        memory = self.module.machine.target.memory("activation").bytes
        for argument in block.args:
            type_ = argument.type
            if isinstance(type_, TensorType) and nn.is_float(type_.element_type):
                cut = self.layouts.by_rows(type_) if nn.tensor_bytes(type_) > memory // INPUT_SHARE else None
                Rewriter.replace_value_with_new_type(argument, with_layout(type_, cut))

    def block(self, block: Block, entry: bool = False) -> None:
        """Rewrite the operations of a block, in order."""
        for op in list(block.ops):
            if op.parent is not None:
                self.visit(op, entry)

    def visit(self, op: Operation, entry: bool) -> None:
        """Rewrite one operation, or make its operands whole."""
        match op:
            case nn.LinearOp():
                self.linear(op)
            case nn.AttentionOp():
                self.attention(op)
            case nn.AttentionFullOp():
                self.attention_full(op)
            case nn.ConvOp() if weight_param(op.weight) is not None and nn.tensor_bytes(op.result.type):
                self.conv(op)
            case nn.CacheWriteOp():
                self.cache_write(op)
            case nn.EmbeddingOp() | nn.GatherOp() if self.forms(op, pim.EmbeddingOp):
                self.embedding(op)
            case nn.SelectTokenOp() | nn.SliceOp():
                self.select(op)
            case func.ReturnOp():
                op.operands = [self.returned(value, entry) for value in op.operands]
            case scf.YieldOp():
                pass  # what a loop carries is the loop's business
            case func.CallOp():
                self.call(op)
            case scf.ForOp():
                self.loop(op)
            case nn.NnOp() if op.operands and isinstance(op, BY_PARTS):
                self.layouts.choose(op)
            case _:
                self.make_whole(op)

    def forms(self, op: nn.NnOp, form: type[Operation]) -> bool:
        """Whether ``op`` becomes an operation of a type where it has been placed."""
        return form in choice_of(op, self.module.machine.target).forms

    # -- values ----

    def whole(self, value: SSAValue) -> SSAValue:
        """``value`` on every core."""
        return self.layouts.whole(value)

    def make_whole(self, op: Operation) -> None:
        """Replace operands that are cut by their gathers."""
        op.operands = [self.whole(operand) for operand in op.operands]

    def returned(self, value: SSAValue, entry: bool) -> SSAValue:
        """A result: of an entry, the host reads the pieces if one dimension is cut."""
        layout = layout_of(value.type)
        return value if entry and (layout is None or len(layout.cuts) == 1) else self.layouts.settled(value)

    def call(self, op: func.CallOp) -> None:
        """Partition the callee for the layouts of its first call; a later call changes its operands to them."""
        name = op.callee.string_value()
        callee = self.module.functions[name]
        if name not in self.module.done:
            op.operands = [self.layouts.settled(value) for value in op.operands]
            self.module.done[name] = [layout_of(value.type) for value in op.operands]
            for argument, value in zip(callee.body.block.args, op.operands, strict=True):
                Rewriter.replace_value_with_new_type(argument, value.type)
            _FunctionPartition(self.module, Relayout(self.module.machine)).run(callee)
        op.operands = [
            self.layouts.to(value, layout) if isinstance(value.type, TensorType) else value
            for value, layout in zip(op.operands, self.module.done[name], strict=True)
        ]
        for result, type_ in zip(op.results, callee.function_type.outputs, strict=True):
            if result.type != type_:
                Rewriter.replace_value_with_new_type(result, type_)

    def loop(self, op: scf.ForOp) -> None:
        """What a loop carries keeps the layout that it has before."""
        body, first = op.body.block, len(op.operands) - len(op.iter_args)
        for index, value in enumerate(op.iter_args):
            settled = self.layouts.settled(value)
            op.operands[first + index] = settled
            for carried in (body.args[1 + index], op.results[index]):
                Rewriter.replace_value_with_new_type(carried, settled.type)
        self.block(body)
        yielded = body.last_op
        assert isinstance(yielded, scf.YieldOp)
        yielded.operands = [
            self.layouts.to(value, layout_of(argument.type))
            for value, argument in zip(yielded.operands, body.args[1:], strict=True)
        ]

    # -- operations ----

    def linear(self, op: nn.LinearOp) -> None:
        """Replace the whole group of ``op`` by one matrix operation at the first member's place."""
        if op not in self.module.groups:
            raise InputError(
                "a linear layer with a computed weight or bias cannot be cut over the cores",
                where=where(op),
                hint="a product of two computed tensors is an nn.matmul",
            )
        group = self.module.groups[op].members
        x = op.x if op.rows() > 1 and self.stays_cut(op.x) else self.whole(op.x)
        for member in group:
            for value in (member.weight, member.bias):
                param = weight_param(value)
                block = op.parent_block()
                if param is not None and block is not None and _is_behind(param, op, block):
                    block.detach_op(param)
                    Rewriter.insert_op(param, InsertPoint.before(op))
        types: list[Attribute] = []
        reasons: list[str] = []
        for member in group:
            shard, reason = self.shard_for(member)
            types.append(pim.with_shard(nn.tensor_of(member.result), shard))
            reasons.append(reason)
        kind = pim.GemvOp if self.forms(op, pim.GemvOp) else pim.GemmOp
        new = kind(x, [m.weight for m in group], [m.bias for m in group], types)
        new.attributes |= op.attributes
        _sum_costs(new, group)
        new.attributes[SHARD_REASON] = StringAttr("; ".join(dict.fromkeys(reasons)))
        with_location(new, group)
        Rewriter.insert_op(new, InsertPoint.before(op))
        for member, output in zip(group, new.outputs, strict=True):
            output.name_hint = member.result.name_hint
            member.result.replace_all_uses_with(output)
            Rewriter.erase_op(member)

    def stays_cut(self, x: SSAValue) -> bool:
        """Whether a GEMM gathers its input in blocks: one that is large, or cut along several dimensions."""
        layout, memory = layout_of(x.type), self.module.machine.target.memory("activation").bytes
        return nn.tensor_bytes(x.type) > memory // GATHER_SHARE or (layout is not None and len(layout.cuts) > 1)

    def shard_for(self, op: nn.LinearOp) -> tuple[pim.ShardAttr, str]:
        """The cut of a linear layer's output, and why."""
        n = nn.tensor_of(op.weight).get_shape()[0]
        if op in self.module.heads:
            heads, dim = self.module.heads[op]
            shard = feature_shard(heads, dim, self.module.machine.channels, self.module.machine.cores)
            return shard, f"head-wise by Algorithm 1: {heads} heads of {dim}"
        return tensor_shard(n, self.module.machine.cores), "tensor-wise: equal blocks of features"

    def select(self, op: nn.SelectTokenOp | nn.SliceOp) -> None:
        """The core that has the one row that is wanted sends it to all; other slices are of parts."""
        length = op.length if isinstance(op, nn.SelectTokenOp) else _length_to_row(op)
        x = op.x if length is None or layout_of(op.x.type) is None else self.layouts.settled(op.x)
        if isinstance(op, nn.SliceOp) and length is None:
            self.layouts.choose(op)
            return
        if length is None or layout_of(x.type) is None:
            self.make_whole(op)
            return
        rows = ShardAttr.blocks(nn.tensor_of(x).get_shape()[1], self.module.machine.cores)
        x = self.layouts.to(x, LayoutAttr.of({1: rows}))
        if isinstance(length, nn.ConstantOp):
            Rewriter.insert_op(with_location(length, op), InsertPoint.before(op))
        self.replace(op, pim.SelectTokenOp(x, self.whole(SSAValue.get(length))))

    def cache_write(self, op: nn.CacheWriteOp) -> None:
        """Note the write; the second of a pair becomes the ``pim.kv_append`` of both (see
        :meth:`attention`).
        """
        op.operands[2] = self.whole(op.position)
        self.written[(op.cache, op.layer)] = op

    def attention(self, op: nn.AttentionOp) -> None:
        """Replace attention and the pair of cache writes before it."""
        heads, kv_heads, dim = (a.value.data for a in (op.heads, op.kv_heads, op.head_dim))
        rounds, reason = self.module.rounds_of(op)
        k_write = self.written.pop((op.k, op.layer), None)
        v_write = self.written.pop((op.v, op.layer), None)
        if k_write is not None and v_write is not None:
            self.append(k_write, v_write, pim.HeadsAttr.of(rounds))
        elif (k_write is None) != (v_write is None):
            raise InputError("attention needs its keys and values written together", where=where(op))
        shard = rounds_shard(rounds, heads // kv_heads * dim)
        properties: dict[str, Attribute] = {**op.properties, "rounds": pim.HeadsAttr.of(rounds)}
        result = pim.with_shard(nn.tensor_of(op.result), shard)
        bias = None if op.bias is None else self.whole(op.bias)
        q = self.by_heads(op.q, pim.HeadsAttr.of(rounds), kv_heads)
        new = pim.AttentionOp((q, op.layer, op.position), bias, properties, result)
        new.attributes |= op.attributes
        new.attributes[SHARD_REASON] = StringAttr(reason)
        self.replace(op, new)

    def by_heads(self, value: SSAValue, rounds: pim.HeadsAttr, heads: int) -> SSAValue:
        """Rows of heads on the groups of cores that work on the heads; a value that is whole, or of one row, whole."""
        shape = nn.tensor_of(value).get_shape()
        layout = LayoutAttr.of({len(shape) - 1: rounds.shard(shape[-1] // heads)})
        if layout_of(value.type) is None or prod(shape[:-1]) == 1 or not fits(layout, shape):
            return self.whole(value)
        return self.layouts.to(value, layout)

    def written_for_others(self, write: nn.CacheWriteOp) -> None:
        """Replace a pair of cache writes that attention of another entry point reads: an encoder's keys and values."""
        if (write.cache, write.layer) not in self.written:
            return  # the other of the pair
        pair = next((found for found in self.module.readers if write.cache in found[:2]), None)
        if pair is None:
            raise InputError("a cache is written that no attention reads", where=where(write))
        k_write, v_write = (self.written.pop((cache, write.layer), None) for cache in pair[:2])
        if k_write is None or v_write is None:
            raise InputError("attention needs its keys and values written together", where=where(write))
        self.append(k_write, v_write, pim.HeadsAttr.of(pair[2]))

    def attention_full(self, op: nn.AttentionFullOp) -> None:
        """Blocks of sequences, heads and query rows; keys and values stay where they are, each part on some cores."""
        sizes = AttentionSizes.of(op)
        grid = best_grid(self.module.machine, sizes)
        q = self.layouts.to(op.q, grid.query_layout(sizes.share * sizes.dim))
        operands = [q, *(self.in_parts(value) for value in (op.k, op.v))]
        properties: dict[str, Attribute] = {
            key: value for key, value in op.properties.items() if key != "operandSegmentSizes"
        }
        properties["grid"] = DenseArrayBase.from_list(i64, grid.numbers)
        new = pim.AttentionFullOp(operands, None, properties, q.type)
        if op.mask is not None:
            mask = self.mask_of(new, op.mask)
            new = pim.AttentionFullOp([q, *operands[1:]], mask, properties, q.type)
        new.attributes |= op.attributes
        new.attributes[SHARD_REASON] = StringAttr(
            f"by the least estimated time: {grid.sequences} sequences, {grid.heads} KV heads and {grid.rows} query "
            f"rows a core, on {grid.cores} cores"
        )
        self.replace(op, new)

    def in_parts(self, value: SSAValue) -> SSAValue:
        """``value`` cut along one dimension: by features where every core has all of it."""
        shape, layout = nn.tensor_of(value).get_shape(), layout_of(value.type)
        if layout is not None and len(layout.cuts) == 1:
            return value
        return self.layouts.to(value, LayoutAttr.of({2: tensor_shard(shape[2], self.module.machine.cores)}))

    def mask_of(self, op: pim.AttentionFullOp, mask: SSAValue) -> SSAValue:
        """A mask of every query row cut as the rows are; one of keys whole."""
        shape = nn.tensor_of(mask).get_shape()
        wide = len(shape) > 1 and shape[-2] > 1
        return self.layouts.to(mask, op.mask_layout(mask)) if wide else self.whole(mask)

    def conv(self, op: nn.ConvOp) -> None:
        """Cut output channels, images or rows over the cores."""
        new, reason = cut_conv(op, self.layouts, None if op.bias is None else self.whole(op.bias))
        new.attributes |= op.attributes
        new.attributes[SHARD_REASON] = StringAttr(reason)
        self.replace(op, new)

    def append(self, k_write: nn.CacheWriteOp, v_write: nn.CacheWriteOp, rounds: pim.HeadsAttr) -> None:
        """One ``pim.kv_append`` at the later of the two writes."""
        block = k_write.parent_block()
        if block is None or block is not v_write.parent_block() or k_write.position != v_write.position:
            raise InputError("keys and values of a layer must be written at one position", where=where(v_write))
        later = max((k_write, v_write), key=block.get_operation_index)
        heads = sum(r.heads for r in rounds.head_rounds)
        keys, values = (self.by_heads(write.x, rounds, heads) for write in (k_write, v_write))
        new = pim.KvAppendOp(keys, values, k_write.layer, k_write.position, k_write.cache, v_write.cache, rounds)
        new.attributes |= later.attributes
        with_location(new, [k_write, v_write])
        Rewriter.insert_op(new, InsertPoint.before(later))
        Rewriter.erase_op(k_write)
        Rewriter.erase_op(v_write)

    def embedding(self, op: nn.EmbeddingOp | nn.GatherOp) -> None:
        """Cut the table's rows over the tiles, or copy a small table that positions index."""
        table, ids = op.operands
        rows = nn.tensor_of(table).get_shape()[0]
        row_bytes = nn.tensor_bytes(table.type) // max(rows, 1)
        positional = _is_position(ids)
        copied = positional and row_bytes <= self.module.options.replicate_limit
        per_core = rows if copied else -(-rows // self.module.machine.cores)
        wrap = isinstance(op, nn.GatherOp)
        type_ = nn.tensor_of(op.result)
        new = pim.EmbeddingOp(
            table, self.whole(ids), per_core, copied, pim.with_layout(type_, self.layouts.by_rows(type_)), wrap=wrap
        )
        new.attributes |= op.attributes
        reason = (
            f"rows of {row_bytes} bytes, indexed by position: a copy in every tile"
            if copied
            else "rows cut over the tiles"
        )
        new.attributes[SHARD_REASON] = StringAttr(reason)
        self.replace(op, new)

    def replace(self, op: Operation, new: Operation) -> None:
        """Put ``new`` in the place of ``op`` with its location and result names."""
        with_location(new, op)
        Rewriter.replace_op(op, new)


def _is_behind(op: Operation, other: Operation, block: Block) -> bool:
    if op.parent_block() is not block:
        return False
    return block.get_operation_index(op) > block.get_operation_index(other)


def _length_to_row(op: nn.SliceOp) -> nn.ConstantOp | None:
    """One more than the row that a slice of ``[B, M, F]`` takes whole; None if it takes something else."""
    shape, result = nn.tensor_of(op.x).get_shape(), nn.tensor_of(op.result).get_shape()
    if len(shape) != 3 or result != (shape[0], 1, shape[2]) or min(nn.values_of(op.steps)) < 0:
        return None
    return nn.ConstantOp.from_array([nn.values_of(op.starts)[1] + 1], i32)


def _is_position(value: SSAValue) -> bool:
    while isinstance(owner := value.owner, nn.BinaryOp | nn.CastOp | nn.ReshapeOp):
        value = owner.operands[0]
    return isinstance(owner, nn.PositionsOp)


def _sum_costs(new: Operation, group: list[nn.LinearOp]) -> None:
    """The cost of a fused operation: the members' sum, the shared input counted once."""
    if not all(FLOPS in op.attributes for op in group):
        return
    costs = [op.cost() for op in group]
    flops = sum(cost.flops for cost in costs)
    moved = sum(cost.bytes for cost in costs) - (len(group) - 1) * nn.tensor_bytes(group[0].x.type)
    new.attributes[FLOPS] = IntegerAttr(flops, i64)
    new.attributes[BYTES] = IntegerAttr(moved, i64)
    new.attributes[INTENSITY] = FloatAttr(flops / moved if moved else 0.0, f32)
