"""Attention without a cache: cores have blocks of sequences, of KV heads and of query rows.

Each works through its heads one after the other: it gets the head's keys and values in blocks (:mod:`key_stream`), and
takes its query rows through each in blocks that fill the tensor unit, by online softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.attention_tensor import Matrix, each_query, hide_columns, multiply_by_columns, multiply_by_rows
from pimc.backends.lower.context import LoweringContext, whole_shape_of
from pimc.backends.lower.heads import Shape
from pimc.backends.lower.index import Index, Indices
from pimc.backends.lower.key_stream import KeyBlock, KeyStream
from pimc.backends.lower.online import OnlineSoftmax, Rows
from pimc.backends.lower.parts import Part, parts_of
from pimc.backends.lower.values import Buffer, Strip, Tensor
from pimc.backends.lower.views import View, contiguous, copy_view, filled, view_of
from pimc.ir.layout import layout_of
from pimc.ir.pim.changes import AllToAllOp
from pimc.ir.pim.encoder import AttentionFullOp, AttentionGrid
from pimc.ir.pim.tiling import AttentionTiling


def lower_attention_full(ctx: LoweringContext, op: AttentionFullOp) -> None:
    """A loop over the core's heads of its sequences, of their blocks of keys and values, of blocks of query rows."""
    tiling = AttentionTiling.of(op)
    if tiling is None:
        raise ctx.unsupported("it has no tiling (run tile before lower)")
    grid, x = AttentionGrid.of(op), Indices(ctx.core)
    share, dim = op.heads.value.data // op.kv_heads.value.data, op.head_dim.value.data
    shape = Shape(share, dim, min(tiling.rows, grid.rows))
    in_place = (
        isinstance(op.q.owner, AllToAllOp) and op.q.has_one_use() and op.q.owner.parent_block() is op.parent_block()
    )
    size = grid.sequences * grid.rows, grid.heads * shape.width
    out = ctx.tensor(op.q).whole if in_place else ctx.strip("attention.out", *size)  # a head's queries end with it
    stream = KeyStream.of(ctx, op, min(tiling.keys, whole_shape_of(op.k)[1]))
    blocks = -(-grid.rows // shape.rows)
    softmax = OnlineSoftmax.of(ctx, shape.stacked, dim, blocks)
    last = Strip(softmax.total, 1, 1, 2, (blocks - 1) * shape.stacked * dim * 4)
    scores = ctx.alloc("attention.scores", shape.stacked * stream.block * 2)
    work = _Work(ctx, op, grid, shape, softmax, scores, _Mask.of(ctx, op))
    if work.some_idle and not in_place:  # what no head is written to is zero
        at = ctx.address(out)
        ctx.core.vfill_h(at, at, ctx.f32(0.0), ctx.core.const(out.elements))
    stream.begin()
    with x.loop(grid.sequences * grid.heads) as item:
        place = work.place(item)
        softmax.begin(ctx)
        with stream.each(item, last) as block, work.if_there(place), x.loop(blocks) as number:
            work.attend(place, block, number)
        with work.if_there(place), x.loop(blocks) as number:
            rows = work.rows(number)
            to = x.add(ctx.address(out), work.query_offset(place, rows.first, out.pitch))
            softmax.rows_from(rows.state).round(ctx, ctx.core.register(to), out.pitch, share)
    stream.end(last)
    ctx.set(op.output, Tensor((out,)))


@dataclass(frozen=True)
class _Place:
    """A head of a sequence: counted from the core's first one, and from the first of all."""

    sequence: Index
    head: Index
    whole_sequence: SSAValue
    whole_head: SSAValue


@dataclass(frozen=True)
class _QueryRows:
    """A block of query rows: its first row, and that of its state (blocks may have rows in common, states not)."""

    first: Index
    state: SSAValue


@dataclass(frozen=True)
class _Work:
    """The work of a core: queries of ``shape.rows`` rows at a time."""

    ctx: LoweringContext
    op: AttentionFullOp
    grid: AttentionGrid
    shape: Shape
    softmax: OnlineSoftmax
    scores: Buffer
    mask: _Mask | None

    @property
    def some_idle(self) -> bool:
        """Whether some core has fewer heads or sequences than others."""
        grid, heads, sequences = self.grid, self.op.kv_heads.value.data, whole_shape_of(self.op.q)[0]
        clipped = grid.heads * grid.head_groups > heads or grid.sequences * grid.sequence_groups > sequences
        return clipped or 1 < grid.cores < self.ctx.cores

    def place(self, item: Index) -> _Place:
        """The ``item``-th head of the core's sequences; cores without one count behind the last head."""
        core, grid, x = self.ctx.core, self.grid, Indices(self.ctx.core)
        sequence, head = x.split(item, (grid.sequences, grid.heads))
        groups = [self._groups(number) for number in range(self.ctx.cores)]
        first_sequence = core.const([grid.sequences * number for number, _, _ in groups])
        first_head = core.const([grid.heads * number for _, number, _ in groups])
        return _Place(
            sequence,
            head,
            core.register(x.add(first_sequence, sequence)),
            core.register(x.add(first_head, head)),
        )

    def _groups(self, core: int) -> tuple[int, int, int]:
        """The groups of sequences, heads and rows that a core belongs to."""
        grid = self.grid
        if grid.cores == 1:
            return 0, 0, 0
        if core >= grid.cores:
            return 0, self.op.kv_heads.value.data, 0
        heads, rows = divmod(core, grid.row_groups)
        return (*divmod(heads, grid.head_groups), rows)

    @contextmanager
    def if_there(self, place: _Place) -> Iterator[None]:
        """What is inserted meanwhile runs on cores that have the head and the sequence."""
        core = self.ctx.core
        with ExitStack() as conditions:
            if self.some_idle:
                heads, sequences = self.op.kv_heads.value.data, whole_shape_of(self.op.q)[0]
                conditions.enter_context(core.if_(place.whole_head, "lt", heads))
                conditions.enter_context(core.if_(place.whole_sequence, "lt", sequences))
            yield

    def rows(self, number: Index) -> _QueryRows:
        """A block of query rows; the last one ends with the last row."""
        x, size = Indices(self.ctx.core), self.shape.rows
        first = x.mul(number, size)
        state = self.ctx.core.register(x.mul(first, self.shape.share))
        return _QueryRows(x.least(first, self.grid.rows - size), state)

    def query_offset(self, place: _Place, row: Index, pitch: int) -> Index:
        """Where a row of the head's queries is in the core's part of all."""
        x = Indices(self.ctx.core)
        rows = x.add(x.mul(place.sequence, self.grid.rows), row)
        return x.add(x.mul(rows, pitch), x.mul(place.head, self.shape.width * 2))

    def attend(self, place: _Place, block: KeyBlock, number: Index) -> None:
        """Add a block of keys and values to the softmax of a block of query rows."""
        ctx, core, op, shape, x = self.ctx, self.ctx.core, self.op, self.shape, Indices(self.ctx.core)
        rows = self.rows(number)
        count, hidden = block.count, None
        with ExitStack() as conditions:
            if op.causal.value.data:  # row r sees keys up to r + keys - queries
                ahead = whole_shape_of(op.k)[1] - whole_shape_of(op.q)[1]
                row = x.add(core.const([self.grid.rows * self._groups(c)[2] for c in range(ctx.cores)]), rows.first)
                hidden = core.register(x.sub(x.add(row, ahead + 1), block.first))
                count = core.min(count, x.add(hidden, shape.rows - 1))
                conditions.enter_context(core.if_(count, "ge", 1))
            scores = self._scores(place, block, rows, count, hidden)
            softmax = self.softmax.rows_from(rows.state)
            softmax.weigh(ctx, scores, seen=False)
            weights = Matrix(scores.at, scores.pitch)
            part = Matrix(core.address(softmax.part.value), shape.dim * 2)
            multiply_by_columns(ctx, weights, block.values, part, shape.stacked, shape.dim, count)
            softmax.add(ctx)

    def _scores(
        self, place: _Place, block: KeyBlock, rows: _QueryRows, count: SSAValue, hidden: SSAValue | None
    ) -> Rows:
        """The scores of query rows with ``count`` keys; ``hidden``: the first key that the first row does not see."""
        ctx, core, op, shape, x = self.ctx, self.ctx.core, self.op, self.shape, Indices(self.ctx.core)
        q = ctx.tensor(op.q).whole
        query = ctx.alloc("attention.query", shape.rows * shape.width * 2)
        at, source = core.address(query.value), x.add(ctx.address(q), self.query_offset(place, rows.first, q.pitch))
        scale = ctx.f32(op.scale.value.data)
        core.on_rows(
            "vmuls_h", shape.rows, (at, shape.width * 2), (core.register(source), q.pitch), (scale, 0), n=shape.width
        )
        pitch = self.scores.bytes // shape.stacked
        weights = Matrix(core.address(self.scores.value), pitch)
        left = Matrix(at, shape.dim * 2)
        multiply_by_rows(ctx, left, block.keys, weights, shape.stacked, count, shape.dim)
        scores = Rows(shape.stacked, weights.at, pitch, count)
        if self.mask is not None:
            self.mask.add(ctx, scores, shape, place, self._mask_row(rows), block.first)
        if hidden is not None:
            _hide(ctx, scores, shape, hidden)
        return scores

    def _mask_row(self, rows: _QueryRows) -> Index:
        """The row of the mask of a block's first query row."""
        assert self.mask is not None  # the caller's
        if 2 in self.mask.cut:
            return rows.first
        firsts = [self.grid.rows * self._groups(core)[2] for core in range(self.ctx.cores)]
        return Indices(self.ctx.core).add(self.ctx.core.const(firsts), rows.first)


@dataclass(frozen=True)
class _Mask:
    """What is added to scores: ``view`` is ``[sequences, heads, queries, keys]``, of which dimensions in ``cut`` are
    those of the core alone.
    """

    view: View
    cut: frozenset[int]

    @staticmethod
    def of(ctx: LoweringContext, op: AttentionFullOp) -> _Mask | None:
        """The mask of an attention; None if there is none, or one that is the same for all keys of a query."""
        if op.mask is None:
            return None
        if op.relative is not None:
            return _Mask._of_differences(ctx, op, op.mask)
        layout = layout_of(op.mask.type)
        part = Part(view_of(ctx, op.mask)) if layout is None else parts_of(ctx, op.mask)[0]
        view, missing = part.view, 4 - part.view.rank
        shape = (1,) * missing + whole_shape_of(op.mask)
        strides = tuple(
            0 if size == 1 else stride for size, stride in zip(shape, (0,) * missing + view.strides, strict=True)
        )
        if strides[3] == 0 and whole_shape_of(op.k)[1] > 1:
            return None
        cut = frozenset(cut.dim + missing for cut in part.cuts)
        return _Mask(View(view.buffer, (1,) * missing + view.shape, strides, view.offset), cut)

    @staticmethod
    def _of_differences(ctx: LoweringContext, op: AttentionFullOp, mask: SSAValue) -> _Mask:
        """Rows of a mask by difference of key and query: each begins an element before the one above it."""
        grid, source = AttentionGrid.of(op), contiguous(ctx, view_of(ctx, mask))
        queries, pitch = whole_shape_of(op.q)[1], source.strides[1]
        behind = grid.row_groups * grid.rows - queries  # rows of zeros behind the last query have numbers too
        if behind:
            size, heads, count = source.itemsize, source.shape[1], source.shape[3]
            padded = filled(ctx, (1, heads, 1, count + behind), 0.0)
            copy_view(ctx, source, padded.slice(3, behind, count))
            source, pitch = padded, (count + behind) * size
        at = source.offset + (queries - 1 + behind) * source.itemsize
        strides = (0, pitch, -source.itemsize, source.itemsize)
        return _Mask(View(source.buffer, source.shape, strides, at), frozenset())

    def add(self, ctx: LoweringContext, rows: Rows, shape: Shape, place: _Place, row: Index, key: Index) -> None:
        """Add the mask of query rows from ``row`` on (of the mask) and keys from ``key`` on."""
        core, x, strides = ctx.core, Indices(ctx.core), self.view.strides
        sequence = place.sequence if 0 in self.cut else place.whole_sequence
        group = place.head if 1 in self.cut else place.whole_head
        line = x.add(x.mul(key, 2), x.mul(row, strides[2]))
        line = x.add(x.add(line, x.mul(sequence, strides[0])), x.mul(group, shape.share * strides[1]))
        at = x.add(core.address(self.view.buffer.value, self.view.offset), line)
        for head in range(shape.share):
            to = (core.add(rows.at, core.const(head * rows.pitch)), shape.share * rows.pitch)
            lines = (core.register(x.add(at, head * strides[1])), strides[2])
            core.on_rows("vadd_h", shape.rows, to, to, lines, n=rows.count)


def _hide(ctx: LoweringContext, rows: Rows, shape: Shape, visible: SSAValue) -> None:
    """Hide all but ``visible`` keys of the first query row, one more of each further one, if any are hidden."""
    core = ctx.core
    some = core.if_(visible, "lt", rows.count)
    with some, each_query(ctx, rows, shape.share, visible, shape.rows) as (own, scores):
        seen = core.min(core.max(own, core.const(0)), rows.count)
        hide_columns(ctx, scores, seen, core.sub(rows.count, seen))
