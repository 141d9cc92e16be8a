"""Attention without a cache, on groups of cores (encoders, cross attention)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import BoolAttr, DenseArrayBase, FloatAttr, IntegerAttr, TensorType, UnitAttr, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import LayoutAttr, ShardAttr, ShardRound, layout_of
from pimc.ir.nn.base import shape_of as _shape

AnyTensor = TensorType[Attribute]


@dataclass(frozen=True)
class AttentionGrid:
    """Cores by what of an attention they work on: a block of sequences, of KV heads, and of query rows.

    Core ``(i * head_groups + j) * row_groups + k`` has the i-th block of ``sequences`` sequences, the j-th of ``heads``
    KV heads, and the k-th of ``rows`` query rows; cores behind the last one have nothing.  Where there is one block
    altogether, every core has it.
    """

    sequence_groups: int
    head_groups: int
    row_groups: int
    sequences: int
    heads: int
    rows: int

    @staticmethod
    def of(op: AttentionFullOp) -> AttentionGrid:
        """The grid of an operation: its blocks have the sizes that its numbers of groups give."""
        sequences, rows, _ = _shape(op.q)
        first, second, third = op.grid.get_values()
        sizes = (-(-sequences // first), -(-op.kv_heads.value.data // second))
        layout = layout_of(op.q.type)
        shard = None if layout is None else layout.cuts.get(1)
        return AttentionGrid(first, second, third, *sizes, rows if shard is None else shard.max_local_size)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Groups of cores for sequences, heads and rows."""
        return self.sequence_groups, self.head_groups, self.row_groups

    @property
    def cores(self) -> int:
        """Cores that have a block of their own."""
        return self.sequence_groups * self.head_groups * self.row_groups

    @property
    def heads_at_once(self) -> int:
        """Groups of cores that work on different heads or sequences."""
        return self.sequence_groups * self.head_groups

    def sequence_shard(self) -> ShardAttr | None:
        """The cut of a dimension of sequences; None where it is whole."""
        return self._shard(self.sequence_groups, self.sequences, self.head_groups * self.row_groups, 1)

    def head_shard(self, features: int) -> ShardAttr | None:
        """The cut of a dimension of ``features`` a KV head."""
        return self._shard(self.head_groups, self.heads * features, self.row_groups, self.sequence_groups)

    def row_shard(self) -> ShardAttr | None:
        """The cut of a dimension of query rows."""
        return self._shard(self.row_groups, self.rows, 1, self.heads_at_once)

    def _shard(self, groups: int, size: int, share: int, repeats: int) -> ShardAttr | None:
        return None if groups == 1 else ShardAttr.of([ShardRound(0, 0, self.cores, size, share, repeats)])

    def query_layout(self, features: int) -> LayoutAttr | None:
        """The layout of queries and results ``[sequences, rows, features * KV heads]``."""
        return layout_with((self.sequence_shard(), self.row_shard(), self.head_shard(features)))


def layout_with(shards: Sequence[ShardAttr | None]) -> LayoutAttr | None:
    """The layout of a tensor whose dimensions are cut so."""
    cuts = {dim: shard for dim, shard in enumerate(shards) if shard is not None}
    return LayoutAttr.of(cuts) if cuts else None


@irdl_op_definition
class AttentionFullOp(IRDLOperation):
    """Attention of q ``[B, M, heads * head_dim]`` over k, v ``[B, N, kv_heads * head_dim]``, sequence by sequence.

    ``grid`` says how many groups of cores there are for sequences, for KV heads and for query rows
    (:class:`AttentionGrid`); q and the result are cut so.  k and v are cut along one dimension: the cores of a group
    get their keys and values block by block from those that have them.  ``mask`` is added to the scores, and broadcasts
    to ``[B, heads, M, N]``; it is whole, or cut as the grid has it.  With ``causal`` query m sees keys ``0 .. m + N -
    M``.  A ``relative`` mask is that of `nn.attention_full`, whole.
    """

    name = "pim.attention_full"
    q = operand_def(AnyTensor)
    k = operand_def(AnyTensor)
    v = operand_def(AnyTensor)
    mask = opt_operand_def(AnyTensor)
    heads = prop_def(IntegerAttr.constr(i64))
    kv_heads = prop_def(IntegerAttr.constr(i64))
    head_dim = prop_def(IntegerAttr.constr(i64))
    scale = prop_def(FloatAttr)
    causal = prop_def(BoolAttr)
    grid = prop_def(DenseArrayBase.constr(i64))
    relative = opt_prop_def(UnitAttr)
    output = result_def(AnyTensor)
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    traits = traits_def(Pure())
    assembly_format = (
        "$q `,` $k `,` $v (`mask` $mask^ `:` type($mask))? attr-dict `:` type($q) `,` type($k) `,` type($v) "
        "`->` type($output)"
    )

    def __init__(
        self,
        operands: Sequence[SSAValue],
        mask: SSAValue | None,
        properties: dict[str, Attribute],
        result_type: Attribute,
    ) -> None:
        """``operands``: q, k, v; ``properties``: all of the op's."""
        super().__init__(
            operands=[*operands, [] if mask is None else [mask]], properties=properties, result_types=[result_type]
        )

    def verify_(self) -> None:
        """Head counts, feature counts and layouts agree."""
        heads, kv_heads, dim = self.heads.value.data, self.kv_heads.value.data, self.head_dim.value.data
        if kv_heads < 1 or heads % kv_heads:
            raise VerifyException(f"{heads} query heads do not share {kv_heads} KV heads evenly")
        for value, count, what in ((self.q, heads, "query"), (self.k, kv_heads, "key"), (self.v, kv_heads, "value")):
            shape, layout = _shape(value), layout_of(value.type)
            if len(shape) != 3 or shape[0] != _shape(self.q)[0] or shape[2] != count * dim:
                raise VerifyException(f"{what} {shape} is not {count} heads of {dim} of {_shape(self.q)[0]} sequences")
            if layout is not None:
                layout.check(shape)
        if _shape(self.k) != _shape(self.v) or self.output.type != self.q.type:
            raise VerifyException("keys and values, and query and result, have the same shapes and layouts")
        if len(self.grid.get_values()) != 3 or min(self.grid.get_values()) < 1:
            raise VerifyException("the grid is the numbers of groups for sequences, heads and rows")
        if layout_of(self.q.type) != AttentionGrid.of(self).query_layout(heads // kv_heads * dim):
            raise VerifyException(f"queries and results are not cut by the grid {self.grid.get_values()}")
        if self.mask is not None and layout_of(self.mask.type) not in (None, self.mask_layout(self.mask)):
            raise VerifyException("the mask is whole, or cut by the grid")

    def mask_layout(self, mask: SSAValue) -> LayoutAttr | None:
        """The layout of a mask that is cut by the grid: along each dimension that it does not repeat."""
        grid, shape = AttentionGrid.of(self), _shape(mask)
        share = self.heads.value.data // self.kv_heads.value.data
        shards = (grid.sequence_shard(), grid.head_shard(share), grid.row_shard(), None)[4 - len(shape) :]
        return layout_with([shard if size > 1 else None for shard, size in zip(shards, shape, strict=True)])
