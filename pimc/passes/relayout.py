"""The layouts of values while ``partition`` walks a function: what to cut, and the changes that this takes.

An operator on values that are cut computes on parts, where its iteration space allows it.  Of the cuts that its
operands have, and of no cut, it gets the one for which changes of its operands and its own work take the least time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Block, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import VerifyException

from pimc.diagnostics import InternalError
from pimc.ir import nn, pim
from pimc.ir.layout import LayoutAttr, ShardAttr, layout_of, with_layout
from pimc.ir.locations import with_location
from pimc.ir.nn.layouts import check_cuts, layout_under, slide
from pimc.ir.nn.space import Access, Space
from pimc.passes.machine import Machine

#: Operators of single elements: they work on any part of tensors that are cut alike.
POINTWISE = (nn.UnaryOp, nn.BinaryOp, nn.CastOp, nn.CompareOp, nn.SelectOp)
#: Operators that move elements.
MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.SliceOp, nn.ConcatOp, nn.PadOp, nn.BroadcastToOp)
#: Operators whose lowering works on parts: what it does follows from the shapes of operands and results alone.
BY_PARTS = (*POINTWISE, nn.RmsNormOp, nn.LayerNormOp, nn.SoftmaxOp, nn.RopeOp, nn.MaxPoolOp, *MOVES)
Cuts = Mapping[str, ShardAttr]
"""How dimensions of an iteration space are cut, by name."""


@dataclass
class Relayout:
    """Changes of layout in one function, each made once."""

    machine: Machine
    changed: dict[tuple[SSAValue, LayoutAttr | None], SSAValue] = field(default_factory=dict)

    def to(self, value: SSAValue, layout: LayoutAttr | None) -> SSAValue:
        """``value`` with a layout: itself, or its one change (right behind its definition)."""
        have = layout_of(value.type)
        if have == layout:
            return value
        if (value, layout) not in self.changed:
            if have is None and layout is not None and len(layout.cuts) > 1:  # a part along one dimension first
                dim, shape = max(layout.cuts), value.type.get_shape() if isinstance(value.type, TensorType) else ()
                value = self.to(value, LayoutAttr.of({dim: ShardAttr.blocks(shape[dim], self.machine.cores)}))
                have = layout_of(value.type)
            change = _change(value, have, layout)
            self._insert(change, value)
            self.changed[value, layout] = change.output
        return self.changed[value, layout]

    def _insert(self, change: pim.LayoutChangeOp, value: SSAValue) -> None:
        owner = value.owner
        if isinstance(owner, Block):
            parent = owner.parent_op()
            if parent is not None:
                with_location(change, parent)
            first = owner.first_op
            while isinstance(first, pim.LayoutChangeOp):
                first = first.next_op
            point = InsertPoint.at_end(owner) if first is None else InsertPoint.before(first)
        else:
            with_location(change, owner)
            after = owner
            while isinstance(after.next_op, pim.LayoutChangeOp) and after.next_op.input.owner is owner:
                after = after.next_op
            point = InsertPoint.after(after)
        Rewriter.insert_op(change, point)

    def time_to(self, value: SSAValue, layout: LayoutAttr | None) -> int:
        """Estimated time of :meth:`to`."""
        if not isinstance(value.type, TensorType) or (value, layout) in self.changed:
            return 0
        return self.machine.change_fs(value.type, layout)

    def whole(self, value: SSAValue) -> SSAValue:
        """``value`` on every core."""
        return self.to(value, None) if isinstance(value.type, TensorType) else value

    def settled(self, value: SSAValue) -> SSAValue:
        """``value`` as it crosses the border of a loop or function: its features together, its rows cut where that is
        faster.
        """
        type_ = value.type
        if not isinstance(type_, TensorType) or not nn.is_float(type_.element_type):
            return value
        layout = layout_of(type_)
        if layout is not None and len(layout.cuts) == 1 and type_.get_num_dims() - 1 not in layout.cuts:
            return value
        return self.to(value, self.by_rows(type_))

    def by_rows(self, type_: TensorType[Attribute]) -> LayoutAttr | None:
        """The cut of a tensor along its longest leading dimension; None where work on whole rows is faster."""
        shape = type_.get_shape()
        dim = max(range(len(shape) - 1), key=lambda d: shape[d], default=None)
        if dim is None or prod(shape) == 0 or not self.machine.rows_pay(shape[dim], prod(shape) // shape[dim]):
            return None
        return LayoutAttr.of({dim: ShardAttr.blocks(shape[dim], self.machine.cores)})

    # -- operators ----

    def choose(self, op: nn.NnOp) -> None:
        """Change the operands of an operator to the cheapest layouts that its space allows; results follow."""
        space = op.space()
        cuts = min(self._candidates(op, space), key=lambda cuts: self._time(op, space, cuts))
        for index, (operand, access) in enumerate(zip(op.operands, space.operands, strict=True)):
            if isinstance(operand.type, TensorType):
                op.operands[index] = self.to(operand, layout_under(space, access, cuts))
        for result, type_ in zip(op.results, op.types_with_layouts(), strict=True):
            if result.type != type_:
                Rewriter.replace_value_with_new_type(result, type_)

    def _candidates(self, op: nn.NnOp, space: Space) -> list[Cuts]:
        """Cuts that the space allows: those that operands have, the rows of such operands, rows of what a window gives,
        and none.
        """
        found: list[Cuts] = []
        tensors = [(value.type, access) for value, access in zip(op.operands, space.operands, strict=True)]
        if isinstance(op, (nn.MaxPoolOp, *MOVES)) and any(layout_of(type_) is not None for type_, _ in tensors):
            tensors += [(op.result.type, space.results[0])]
        for type_, access in tensors:
            if access is None or not isinstance(type_, TensorType):
                continue
            for each in (layout_of(type_), *self._blocks(op, type_)):
                cut = None if each is None else _cut_for(space, access, each)
                if cut is not None and cut not in found and self._allowed(op, space, cut):
                    found.append(cut)
        return [*sorted(found, key=_leading(space)), {}]

    def _blocks(self, op: nn.NnOp, type_: TensorType[Attribute]) -> list[LayoutAttr | None]:
        """Cuts of a tensor into blocks."""
        if not isinstance(op, nn.MaxPoolOp):
            return [self.by_rows(type_)] if layout_of(type_) is not None or isinstance(op, MOVES) else []
        shape = type_.get_shape()
        return [LayoutAttr.of({dim: ShardAttr.blocks(size, self.machine.cores)}) for dim, size in enumerate(shape[:-1])]

    def _allowed(self, op: nn.NnOp, space: Space, cuts: Cuts) -> bool:
        """Whether an operator can be cut so: the space allows it, and so does every operand.

        Features are cut only where all operands are so already and have the result's shape.
        """
        try:
            check_cuts(space, cuts, op.name)
            for value, access in zip((*op.operands, *op.results), (*space.operands, *space.results), strict=True):
                layout = layout_under(space, access, cuts)
                if layout is not None:
                    layout.check(nn.tensor_of(value).get_shape())
        except VerifyException:
            return False
        if any(access is None and isinstance(value.type, TensorType) for value, access in _operands(op, space)):
            return False
        layouts = [
            (layout_under(space, access, cuts), access) for access in (*space.operands, *space.results) if access
        ]
        features = any(layout is not None and len(access.shape) - 1 in layout.cuts for layout, access in layouts)
        if isinstance(op, MOVES):
            return all(nn.is_float(nn.tensor_of(value).element_type) for value in op.operands)
        return not features or (isinstance(op, POINTWISE) and self._cut_alike(op, space, cuts))

    def _cut_alike(self, op: nn.NnOp, space: Space, cuts: Cuts) -> bool:
        """Whether all operands but numbers have the result's shape and the layout of these cuts."""
        shape = nn.tensor_of(op.results[0]).get_shape()
        return all(
            is_number(value)
            or (nn.tensor_of(value).get_shape() == shape and layout_of(value.type) == layout_under(space, access, cuts))
            for value, access in zip(op.operands, space.operands, strict=True)
            if access is not None
        )

    def _time(self, op: nn.NnOp, space: Space, cuts: Cuts) -> int:
        """Estimated time of the changes that a cut takes, and of the work on a part."""
        total = sum(self.time_to(value, layout_under(space, access, cuts)) for value, access in _operands(op, space))
        largest = {name: range(shard.max_local_size) for name, shard in cuts.items()}
        points = prod(len(indices) for indices in space.full(largest).values())
        if isinstance(op, nn.MaxPoolOp) and cuts:  # what follows wants it cut as x is, or pays for it
            layout, have = layout_under(space, space.results[0], cuts), layout_of(op.x.type)
            if have is not None and layout is not None and list(have.cuts) != list(layout.cuts):
                total += self.machine.change_fs(with_layout(nn.tensor_of(op.result), have), layout)
        return total + self.machine.vector_fs(points)


def _operands(op: nn.NnOp, space: Space) -> list[tuple[SSAValue, Access | None]]:
    return list(zip(op.operands, space.operands, strict=True))


def _cut_for(space: Space, access: Access, layout: LayoutAttr) -> Cuts | None:
    """The cut of a space that asks for this layout of a tensor; None if there is none."""
    if len(layout.cuts) != 1:
        return None
    ((dim, shard),) = layout.cuts.items()
    along = slide(space, access, dim)
    try:
        return None if along is None else {along.name: along.inverse(shard)}
    except VerifyException:
        return None


def _leading(space: Space) -> Callable[[Cuts], int]:
    """Cuts of earlier dimensions first."""
    order = {dim.name: index for index, dim in enumerate(space.dims)}
    return lambda cuts: min(order[name] for name in cuts)


def fits(layout: LayoutAttr, shape: Sequence[int]) -> bool:
    """Whether a tensor of ``shape`` can have a layout."""
    try:
        layout.check(shape)
    except VerifyException:
        return False
    return True


def is_number(value: SSAValue) -> bool:
    """Whether ``value`` is a constant of one element: an operand of an instruction, on every core."""
    return isinstance(value.owner, nn.ConstantOp) and prod(nn.tensor_of(value).get_shape()) == 1


def _change(value: SSAValue, have: LayoutAttr | None, layout: LayoutAttr | None) -> pim.LayoutChangeOp:
    """The operation that gives a value another layout."""
    try:
        if layout is None:
            return pim.AllGatherOp(value)
        return pim.TakeOp(value, layout) if have is None else pim.AllToAllOp(value, layout)
    except VerifyException as error:
        raise InternalError(f"cannot change {value.type} to {layout}: {error}") from error
