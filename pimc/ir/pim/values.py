"""Values in DRAM: the operations that move a core's part of a value, or rows of it, between the memories of the core.

A value in DRAM has a layout with the memory ``dram``: each core has its part in its own channels, at the place that
``pim.region`` says.  Nothing else works on such values.

A loop over rows takes blocks of them: with ``rows = [groups, per_group]``, the rows of a dimension are ``groups`` runs
of ``per_group``, and block ``i`` has ``b`` rows of each run from ``i`` on, one run's behind the other's.  Of a value
that is cut along the dimension, a run is what a core has, and a block is cut likewise.  The last block begins ``b``
rows before the end, so that some rows may be done twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from typing_extensions import override
from xdsl.dialects import scf
from xdsl.dialects.builtin import DenseArrayBase, IndexType, IntegerAttr, TensorType, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import DRAM, LOCAL, LayoutAttr, ShardAttr, ShardRound, in_memory, is_local, layout_of, with_layout
from pimc.ir.nn.base import element_bytes
from pimc.ir.pim.changes import AnyTensor, LayoutChangeOp

#: The attribute of an operation that makes a value in DRAM: where it is.
REGION = "pim.region"


@irdl_op_definition
class SpillOp(LayoutChangeOp):
    """Write every core's part of a value to its own channels."""

    name = "pim.spill"
    TO_LOCAL: ClassVar[bool] = False

    def __init__(self, value: SSAValue) -> None:
        super().__init__(value, _moved(value, DRAM))

    @override
    def verify_layouts(self, source: LayoutAttr | None, result: LayoutAttr | None) -> None:
        """Cut as before."""
        _verify_cuts(source, result)


@irdl_op_definition
class FillOp(LayoutChangeOp):
    """Read every core's part of a value in DRAM back."""

    name = "pim.fill"
    FROM_LOCAL: ClassVar[bool] = False

    def __init__(self, value: SSAValue) -> None:
        super().__init__(value, _moved(value, LOCAL))

    @override
    def verify_layouts(self, source: LayoutAttr | None, result: LayoutAttr | None) -> None:
        """Cut as before."""
        _verify_cuts(source, result)


def _moved(value: SSAValue, memory: str) -> LayoutAttr | None:
    if not isinstance(value.type, TensorType):
        raise VerifyException(f"{value.type} is in no memory")
    return layout_of(in_memory(value.type, memory))


def _verify_cuts(source: LayoutAttr | None, result: LayoutAttr | None) -> None:
    if (source.cuts if source is not None else {}) != (result.cuts if result is not None else {}):
        raise VerifyException("a move between a core's memories keeps the cut")


@irdl_op_definition
class EmptyOp(IRDLOperation):
    """A value in DRAM that has no elements yet; a loop over rows writes them."""

    name = "pim.empty"
    output = result_def(AnyTensor)
    traits = traits_def(Pure())
    assembly_format = "attr-dict `:` type($output)"

    def __init__(self, type_: TensorType[Attribute]) -> None:
        super().__init__(result_types=[type_])

    def verify_(self) -> None:
        """It is in DRAM."""
        if is_local(self.output.type):
            raise VerifyException("pim.empty makes a value in DRAM")


class _RowsOp(IRDLOperation):
    """What moves a block of rows; ``dim``: the dimension of the rows."""

    index = operand_def(IndexType())
    dim = prop_def(IntegerAttr)
    rows = prop_def(DenseArrayBase)
    irdl_options = (ParsePropInAttrDict(),)

    @property
    def groups(self) -> tuple[int, int]:
        """Runs of rows, and rows of each."""
        groups, per_group = (int(n) for n in self.rows.get_values())
        return groups, per_group

    def verify_types(self, whole: Attribute, tile: Attribute) -> None:
        """The tile is the whole value's, with some rows of each run."""
        if not isinstance(whole, TensorType) or not isinstance(tile, TensorType) or is_local(whole):
            raise VerifyException(f"{self.name} moves rows of a value in DRAM")
        dim, count = self.dim.value.data, len(self.rows)
        if count != 2 or not 0 <= dim < whole.get_num_dims() or tile.get_num_dims() != whole.get_num_dims():
            raise VerifyException(f"{self.name}: rows = [groups, rows of a group] of a dimension of both tensors")
        groups, per_group = self.groups
        layout = layout_of(whole)
        if dim not in (layout.cuts if layout is not None else {}) and whole.get_shape()[dim] != groups * per_group:
            raise VerifyException(f"{self.name}: {groups} runs of {per_group} are not the rows of {whole}")
        block = tile.get_shape()[dim] // max(groups, 1)
        if min(groups, per_group, block) < 1 or block > per_group or tile != tile_type(whole, dim, self.groups, block):
            raise VerifyException(f"{self.name}: {tile} is no block of rows of {whole}")


@irdl_op_definition
class ReadOp(_RowsOp):
    """``%tile = pim.read %x[%i]``: a block of rows of a value in DRAM."""

    name = "pim.read"
    input = operand_def(AnyTensor)
    output = result_def(AnyTensor)
    traits = traits_def(Pure())
    assembly_format = "$input `[` $index `]` attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: SSAValue, index: SSAValue, dim: int, groups: tuple[int, int], block: int) -> None:
        assert isinstance(value.type, TensorType)
        super().__init__(
            operands=[value, index],
            result_types=[tile_type(value.type, dim, groups, block)],
            properties={"dim": IntegerAttr(dim, i64), "rows": DenseArrayBase.from_list(i64, groups)},
        )

    def verify_(self) -> None:
        """Types match."""
        self.verify_types(self.input.type, self.output.type)


@irdl_op_definition
class WriteOp(_RowsOp):
    """``%y1 = pim.write %tile, %y[%i]``: a value in DRAM with a block of its rows replaced; it takes the place of
    ``%y``, which is not used again.
    """

    name = "pim.write"
    tile = operand_def(AnyTensor)
    input = operand_def(AnyTensor)
    output = result_def(AnyTensor)
    traits = traits_def(Pure())
    assembly_format = "$tile `,` $input `[` $index `]` attr-dict `:` type($tile) `,` type($input) `->` type($output)"

    def __init__(self, tile: SSAValue, value: SSAValue, index: SSAValue, dim: int, groups: tuple[int, int]) -> None:
        super().__init__(
            operands=[tile, value, index],
            result_types=[value.type],
            properties={"dim": IntegerAttr(dim, i64), "rows": DenseArrayBase.from_list(i64, groups)},
        )

    def verify_(self) -> None:
        """Types match."""
        if self.input.type != self.output.type:
            raise VerifyException("pim.write keeps the type of the value")
        self.verify_types(self.output.type, self.tile.type)


def is_row_loop(op: scf.ForOp) -> bool:
    """Whether a loop goes over blocks of rows (others go over layers)."""
    return any(isinstance(inner, ReadOp | WriteOp) for inner in op.body.block.ops)


@dataclass(frozen=True)
class Area:
    """One run of bytes of a core's part in DRAM: a round of the features, or all of the part.

    ``shape``: what a core has; ``strides``: bytes from index to index, rows of features at whole columns of the DRAM;
    ``offset``: where it begins in the region.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    bytes: int


def areas_of(type_: TensorType[Attribute], column: int) -> tuple[Area, ...]:
    """Where a core has its part of a value in DRAM, round by round where features are cut.

    ``column``: bytes of a column of the DRAM.
    """
    layout, shape, item = layout_of(type_), type_.get_shape(), element_bytes(type_.element_type)
    cuts = {} if layout is None else layout.cuts
    own = [cuts[dim].max_local_size if dim in cuts else size for dim, size in enumerate(shape)]
    features = cuts.get(len(shape) - 1)
    widths = own[-1:] if features is None else [r.per_core for r in features.shard_rounds]
    found: list[Area] = []
    offset = 0
    for width in widths:
        pitch = -(-width * item // column) * column
        rows = own[:-1]
        strides = [pitch * prod(rows[dim + 1 :]) for dim in range(len(rows))]
        size = pitch * prod(rows)
        found.append(Area((*rows, width), (*strides, item), offset, size))
        offset += size
    return tuple(found)


def tile_type(whole: TensorType[Attribute], dim: int, groups: tuple[int, int], block: int) -> TensorType[Attribute]:
    """The type of a block of rows in local memory: ``block`` rows of each group."""
    layout = layout_of(whole)
    cuts = dict(layout.cuts) if layout is not None else {}
    if dim in cuts:
        if cuts[dim] != run_cut(groups):
            raise VerifyException(f"{whole} is not cut into runs {list(groups)} along dimension {dim}")
        cuts[dim] = run_cut((groups[0], block))
    shape: Sequence[int] = [groups[0] * block if d == dim else size for d, size in enumerate(whole.get_shape())]
    return with_layout(TensorType(whole.element_type, shape), LayoutAttr.of(cuts) if cuts else None)


def run_cut(groups: tuple[int, int]) -> ShardAttr:
    """The cut of rows of which each core has one run."""
    return ShardAttr.of([ShardRound(0, 0, *groups)])
