"""``schedule``: order the operations of a block and start bank work early.

GEMVs run on the banks beside the cores: each becomes a ``pim.async`` that starts as soon as its input exists and is
awaited where its results are first needed.  Between, independent work is placed by its critical path (the longest
estimated chain to the end of the block).  Loads of vector weights move to the start of the block, so that they arrive
under other work.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
from typing_extensions import override
from xdsl.dialects import func, scf
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from pimc.backends.lower.choices import place_of
from pimc.ir import nn
from pimc.ir.locations import with_location
from pimc.ir.pim.changes import LayoutChangeOp
from pimc.ir.pim.ops import AsyncOp, AttentionOp, AwaitOp, GemmOp, GemvOp, KvAppendOp, YieldOp, is_bias
from pimc.ir.pim.values import EmptyOp, FillOp, ReadOp, SpillOp, WriteOp
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext
from pimc.targets.target import Target

#: Estimated cost of an operation that annotate did not see, in flops; it only orders independent work.
_UNKNOWN_COST = 1000
#: Operations whose order all agents share.
_IN_ORDER = (LayoutChangeOp, EmptyOp, ReadOp, WriteOp, GemvOp, GemmOp, AsyncOp, AwaitOp)
#: The part of a core's activation memory that vectors loaded ahead in a block may take.
_AHEAD_SHARE = 16


@dataclass(frozen=True)
class SchedulePass(Pass):
    """List scheduling of every block.

    ``overlap``: start GEMVs asynchronously; ``prefetch``: move loads of vector weights to the start of their block;
    ``reorder``: place independent operations by critical path (otherwise in program order).
    """

    name = "schedule"
    produces = Stage.SCHEDULED
    requires = Stage.TILED
    overlap: bool = True
    prefetch: bool = True
    reorder: bool = True

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        blocks = [
            block
            for holder in module.walk()
            if isinstance(holder, func.FuncOp | scf.ForOp)
            for region in holder.regions
            for block in region.blocks
        ]
        for block in blocks:
            if self.reorder or self.prefetch:
                _reorder(
                    block, by_path=self.reorder, ahead=_loaded_ahead(block, context.target) if self.prefetch else set()
                )
            if self.overlap:
                _start_early(block, context.target)


def dependences(block: Block) -> nx.DiGraph[Operation]:
    """What must precede what in a block: definitions before uses, cache writes before later reads and writes."""
    graph: nx.DiGraph[Operation] = nx.DiGraph()
    touched: list[Operation] = []
    for op in block.ops:
        graph.add_node(op)
        for user_of in op.walk():
            for operand in user_of.operands:
                owner = operand.owner
                if isinstance(owner, Operation) and owner.parent is block and owner is not op:
                    graph.add_edge(owner, op)
        if _touches_state(op):
            for earlier in touched:
                graph.add_edge(earlier, op)
            touched.append(op)
    _keep_moves(block, graph)
    return graph


def _keep_moves(block: Block, graph: nx.DiGraph[Operation]) -> None:
    """What brings values to DRAM and back stays where ``spill`` put it: that is what frees memory."""
    work = [op for op in block.ops if not isinstance(op, nn.ParamOp | nn.ConstantOp)]
    for before, op in pairwise(work):
        if isinstance(op, FillOp | ReadOp | scf.ForOp) or isinstance(before, SpillOp | WriteOp):
            graph.add_edge(before, op)


def _touches_state(op: Operation) -> bool:
    return any(isinstance(inner, KvAppendOp | AttentionOp | func.CallOp) for inner in op.walk())


def _cost(op: Operation) -> int:
    flops = op.attributes.get("pim.flops")
    return flops.value.data if isinstance(flops, IntegerAttr) else _UNKNOWN_COST


def ahead_of(op: Operation, target: Target) -> int:
    """Bytes of vectors that are loaded before an operation, though they stand behind it."""
    block = op.parent_block()
    if block is None:
        return 0
    early = (load for load in _loaded_ahead(block, target) if op.is_before_in_block(load))
    return sum(nn.tensor_bytes(load.results[0].type) for load in early if _takes_memory(load))


def _takes_memory(load: Operation) -> bool:
    return isinstance(load, nn.ParamOp) and len(nn.tensor_of(load.result).get_shape()) < 2 and not is_bias(load)


def _loaded_ahead(block: Block, target: Target) -> set[Operation]:
    """The loads of vectors that move to the start of the block: the first ones that take little memory together."""
    room, ahead = target.memory("activation").bytes // _AHEAD_SHARE, set[Operation]()
    for op in block.ops:
        if isinstance(op, nn.ParamOp):
            room -= nn.tensor_bytes(op.result.type) if _takes_memory(op) else 0
            if room >= 0:
                ahead.add(op)
    return ahead


def _reorder(block: Block, *, by_path: bool, ahead: set[Operation]) -> None:
    """Put the operations of a block in the order of their priority, dependences respected; ``ahead`` come first."""
    graph = dependences(block)
    last = block.last_op
    position = {op: index for index, op in enumerate(block.ops)}
    path: dict[Operation, int] = {}
    for op in reversed(list(nx.topological_sort(graph))):
        path[op] = _cost(op) + max((path[user] for user in graph.successors(op)), default=0)

    def priority(op: Operation) -> tuple[int, int, int]:
        early = 0 if op in ahead else 1
        return (early, -path[op] if by_path else 0, position[op])

    order = [op for op in nx.lexicographical_topological_sort(graph, key=priority) if op is not last]
    for op in order:
        op.detach()
    if last is None:
        block.add_ops(order)
    else:
        block.insert_ops_before(order, last)


def _start_early(block: Block, target: Target) -> None:
    """Wrap each GEMV in an async, awaited before its first use; work that does not need it moves in between."""
    for gemv in [op for op in block.ops if isinstance(op, GemvOp)]:
        users = {use.operation for output in gemv.outputs for use in output.uses}
        started = _wrap(gemv, place_of(gemv, target).domain)
        first = _first_in_block(block, started, users)
        if first is None:
            continue
        await_op = with_location(AwaitOp([started.token]), gemv)
        Rewriter.insert_op(await_op, InsertPoint.before(first))
        _fill(block, started, await_op)


def _wrap(gemv: GemvOp, domain: str) -> AsyncOp:
    """Replace a GEMV by an async with it as the body."""
    types = [output.type for output in gemv.outputs]
    body = Block()
    started = with_location(AsyncOp(domain, [], body, types), gemv)
    Rewriter.insert_op(started, InsertPoint.before(gemv))
    for output, value in zip(list(gemv.outputs), started.values, strict=True):
        output.replace_all_uses_with(value)
    Operation.detach(gemv)
    body.add_ops([gemv, with_location(YieldOp(*gemv.outputs), gemv)])
    return started


def _first_in_block(block: Block, after: Operation, users: set[Operation]) -> Operation | None:
    op = after.next_op
    while op is not None:
        if any(inner in users for inner in op.walk()):
            return op
        op = op.next_op
    return None


def _fill(block: Block, started: AsyncOp, await_op: AwaitOp) -> None:
    """Move operations behind the await that need neither its results nor anything that stays behind it before it.

    Only short core work and loads move; gathers and matrices keep their order, which all agents share.
    """
    behind: set[SSAValue] = set(started.values)
    blocked_state = False
    op = await_op.next_op
    while op is not None and op is not block.last_op:
        following = op.next_op
        needs = {operand for inner in op.walk() for operand in inner.operands}
        stays = (
            bool(needs & behind)
            or isinstance(op, (*_IN_ORDER, scf.ForOp, func.CallOp))
            or (blocked_state and _touches_state(op))
        )
        if stays:
            behind |= set(op.results) | _awaited(op)
            blocked_state = blocked_state or _touches_state(op)
        else:
            op.detach()
            block.insert_ops_before([op], await_op)
        op = following


def _awaited(op: Operation) -> set[SSAValue]:
    """The values that an await makes ready: what needs them stays behind it."""
    tokens = op.tokens if isinstance(op, AwaitOp) else ()
    return {value for token in tokens if isinstance(token.owner, AsyncOp) for value in token.owner.values}
