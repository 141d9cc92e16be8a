"""``widen``: chains of element-wise operators and reductions compute in f32, and are rounded to fp16 at their ends.

What one operator hands to the next need not be a number of fp16: ``log(1 + exp(x))`` and the norm of a difference leave
its range on the way to a result that has it.  The vector unit computes in f32 anyway; here values between its operators
stay f32, in local memory, where all operators that use them are of this kind.  Casts stand at both ends of a chain.

The scores of attention, products that go into a softmax, are not rounded before it either.

A value takes part if it is whole on every core and takes at most a share of the activation memory.  Decoders over KV
caches stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import ClassVar, Final

from typing_extensions import override
from xdsl.dialects import func
from xdsl.dialects.builtin import Float16Type, ModuleOp, NoneAttr, TensorType, f16, f32
from xdsl.dialects.ml_program import GlobalOp
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import Rewriter

from pimc.ir import nn
from pimc.ir.locations import with_location
from pimc.ir.nn.functions import BitsOp
from pimc.ir.nn.shape import ReduceOp
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext
from pimc.passes.raise_precision import exact_number

_QUESTIONS: Final = (nn.CompareOp, nn.IsNanOp, nn.IsInfOp)
"""Those whose answer is no number."""
_MOVES: Final = (
    nn.ReshapeOp, nn.TransposeOp, nn.SliceOp, nn.BroadcastToOp, nn.ConcatOp, nn.PadOp,
    nn.MaximumOp, nn.MinimumOp, nn.SelectOp, nn.AbsOp, nn.NegOp, nn.ReluOp,
)  # fmt: skip
"""Those that hand on what they get: rounding before them or behind them is the same."""
_ROUNDED: Final = (*_MOVES, nn.GeluOp, BitsOp)
"""Functions of an element that do not widen what they get."""
_ARITHMETIC: Final[tuple[type[Operation], ...]] = (
    nn.AddOp, nn.SubOp, nn.MulOp, nn.DivOp, nn.PowOp, nn.ModOp, nn.CumSumOp, nn.CumProdOp, nn.SoftmaxOp, ReduceOp,
    *(op for op in nn.Nn.operations if issubclass(op, nn.UnaryOp) and not issubclass(op, _ROUNDED)),
)  # fmt: skip
"""Operators whose results fp16 may not have; they compute with f32 as well."""


_SCALINGS: Final = (*_MOVES, nn.AddOp, nn.SubOp, nn.MulOp, nn.DivOp)
"""What may stand between the scores of attention and their softmax."""


@dataclass(frozen=True)
class WidenPass(Pass):
    """Keep chains of element-wise operators and reductions in f32; ``share``: of the activation memory, for a value."""

    name = "widen"
    requires: ClassVar[Stage | None] = Stage.PARTITIONED
    share: int = 8

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        if any(isinstance(op, GlobalOp) for op in module.ops):
            return
        most = context.target.memory("activation").bytes // max(1, self.share)
        for function in [op for op in module.ops if isinstance(op, func.FuncOp) and op.body.blocks]:
            for op in (chains := _Chains(most)).of(function):
                context.explain(op, "computes in f32, in a chain")
            chains.widen()


@dataclass
class _Chains:
    """The operators of a function that are to compute in f32."""

    most: int
    chosen: dict[Operation, None] = field(default_factory=dict)

    def of(self, function: func.FuncOp) -> list[Operation]:
        """Find them: operators that hand a number to another one of their kind, and those others."""
        for op in function.walk():
            if self._able(op) and (isinstance(op, _ARITHMETIC) or (isinstance(op, nn.MatmulOp) and _are_scores(op))):
                self._follow(op)
        self.chosen = {op: None for op in function.walk() if op in self.chosen}
        return list(self.chosen)

    def _follow(self, op: Operation) -> None:
        """Choose ``op`` and what uses its result, if that gains by it.

        A total is small: it stays f32 for those that can use it, and is rounded for the others.
        """
        users = list(dict.fromkeys(use.operation for use in op.results[0].uses))
        good = [user for user in users if self._gains(user)]
        if good and (len(good) == len(users) or isinstance(op, ReduceOp)):
            self.chosen[op] = None
            for user in good:
                self._choose(user)

    def _choose(self, user: Operation) -> None:
        self.chosen[user] = None
        if isinstance(user, _MOVES):
            for use in user.results[0].uses:
                self._choose(use.operation)

    def _gains(self, user: Operation) -> bool:
        """Whether an operator can take f32: one that computes, or moves to nothing but such."""
        if not self._able(user):
            return False
        if isinstance(user, _MOVES):
            uses = list(user.results[0].uses)
            return bool(uses) and all(self._gains(use.operation) for use in uses)
        return isinstance(user, (*_ARITHMETIC, *_QUESTIONS)) or _to_integer(user)

    def _able(self, op: Operation) -> bool:
        """Whether the numbers of an operator are whole on every core, and small enough."""
        if not isinstance(op, (*_ARITHMETIC, *_QUESTIONS, *_MOVES, nn.CastOp, nn.MatmulOp)):
            return False
        types = [value.type for value in (*op.operands, *op.results) if isinstance(value.type, TensorType)]
        if not any(isinstance(type_.element_type, Float16Type) for type_ in types):
            return False
        if isinstance(op, _ARITHMETIC) and not _is_half(op.results[0]):
            return False
        size = 8 if isinstance(op, nn.MatmulOp) else 4  # of a product, its two parts besides
        return all(
            isinstance(type_.encoding, NoneAttr) and size * prod(type_.get_shape()) <= self.most for type_ in types
        )

    def widen(self) -> None:
        """Give the operators f32: casts before and behind them where they meet others."""
        raised: dict[SSAValue, SSAValue] = {}
        for op in self.chosen:
            for index, operand in enumerate(op.operands):
                if _is_half(operand) and not isinstance(op, nn.MatmulOp):
                    if operand not in raised:
                        raised[operand] = _as_f32(operand, op)
                    op.operands[index] = raised[operand]
            if isinstance(op, nn.CastOp) or not _is_half(op.results[0]):
                continue
            self._widen_result(op)

    def _widen_result(self, op: Operation) -> None:
        result = op.results[0]
        narrow = [use for use in result.uses if isinstance(use.operation, nn.MatmulOp)]
        others = narrow + [use for use in result.uses if use.operation not in self.chosen and use not in narrow]
        Rewriter.replace_value_with_new_type(result, TensorType(f32, nn.tensor_of(result).get_shape()))
        if not others:
            return
        rounded = with_location(nn.CastOp(op.results[0], f16), op)
        block = op.parent
        assert block is not None  # it is in a function
        block.insert_op_after(rounded, op)
        for use in others:
            use.operation.operands[use.index] = rounded.result


def _are_scores(op: Operation) -> bool:
    """Whether a product goes into a softmax, which makes of a rounding of its argument one of its result's size."""
    users = [use.operation for use in op.results[0].uses]
    return any(isinstance(user, nn.SoftmaxOp) or (isinstance(user, _SCALINGS) and _are_scores(user)) for user in users)


def _is_half(value: SSAValue) -> bool:
    return isinstance(value.type, TensorType) and isinstance(value.type.element_type, Float16Type)


def _to_integer(op: Operation) -> bool:
    return isinstance(op, nn.CastOp) and not _is_half(op.result)


def _as_f32(value: SSAValue, user: Operation) -> SSAValue:
    """A value of fp16 as f32, made just behind it; a constant number as it was in the model."""
    owner = value.owner
    constant = isinstance(owner, nn.ConstantOp) and len(owner.value.get_values()) == 1
    new: nn.NnOp
    if isinstance(owner, nn.ConstantOp) and constant:
        new = nn.ConstantOp.from_array(exact_number(owner), f32)
    else:
        new = nn.CastOp(value, f32)
    if isinstance(owner, Operation):
        assert owner.parent is not None  # it is in a function
        owner.parent.insert_op_after(with_location(new, user), owner)
    else:
        assert owner.first_op is not None  # the user, at least
        owner.insert_op_before(with_location(new, user), owner.first_op)
    return new.results[0]
