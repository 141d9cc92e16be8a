"""Changes of layout: the operations that move a value between cores, or keep a part of it."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import LayoutAttr, is_local, layout_of, with_layout

AnyTensor = TensorType[Attribute]


class LayoutChangeOp(IRDLOperation):
    """The same values with another layout: ``input`` and ``output`` have one shape and element type."""

    FROM_LOCAL: ClassVar[bool] = True
    TO_LOCAL: ClassVar[bool] = True

    input = operand_def(AnyTensor)
    output = result_def(AnyTensor)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: SSAValue, layout: LayoutAttr | None) -> None:
        """``value`` with ``layout`` (None: every core holds all of it)."""
        type_ = value.type
        if not isinstance(type_, TensorType):
            raise VerifyException(f"{type_} has no layout to change")
        super().__init__(operands=[value], result_types=[with_layout(type_, layout)])

    def verify_(self) -> None:
        """Both layouts fit the shape, which stays."""
        types = [value.type for value in (self.input, self.output) if isinstance(value.type, TensorType)]
        if len({with_layout(type_, None) for type_ in types}) != 1 or len(types) != len(self.operands) + 1:
            raise VerifyException("a change of layout keeps shape and elements")
        for type_ in types:
            layout = layout_of(type_)
            if layout is not None:
                layout.check(type_.get_shape())
        sides = [is_local(type_) for type_ in types]
        if sides != [self.FROM_LOCAL, self.TO_LOCAL]:
            raise VerifyException(f"{self.name} does not make this memory of that")
        self.verify_layouts(layout_of(self.input.type), layout_of(self.output.type))

    def verify_layouts(self, source: LayoutAttr | None, result: LayoutAttr | None) -> None:
        """The operation makes this of that."""


@irdl_op_definition
class AllGatherOp(LayoutChangeOp):
    """Make a cut value whole on every core."""

    name = "pim.all_gather"

    def __init__(self, value: SSAValue) -> None:
        super().__init__(value, None)

    @override
    def verify_layouts(self, source: LayoutAttr | None, result: LayoutAttr | None) -> None:
        """Cut in, whole out."""
        if source is None or result is not None:
            raise VerifyException("a gather makes a cut value whole")


@irdl_op_definition
class AllToAllOp(LayoutChangeOp):
    """Cut a value otherwise: each core sends each other core what the latter shall have."""

    name = "pim.all_to_all"

    @override
    def verify_layouts(self, source: LayoutAttr | None, result: LayoutAttr | None) -> None:
        """Cut in, cut otherwise out."""
        if source is None or result is None or source == result:
            raise VerifyException("an all-to-all makes another cut of a cut")


@irdl_op_definition
class TakeOp(LayoutChangeOp):
    """Keep a core's part of a value that every core holds whole: nothing moves between cores."""

    name = "pim.take"

    @override
    def verify_layouts(self, source: LayoutAttr | None, result: LayoutAttr | None) -> None:
        """Whole in, cut out."""
        if source is not None or result is None:
            raise VerifyException("a take keeps parts of a whole value")
