"""Attention without a cache, head-wise on groups of cores (encoders, cross attention)."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import BoolAttr, FloatAttr, IntegerAttr, TensorType, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import shard_of
from pimc.ir.pim.attributes import HeadsAttr

AnyTensor = TensorType[Attribute]


@irdl_op_definition
class AttentionFullOp(IRDLOperation):
    """Attention of q ``[1, M, heads * head_dim]`` over k, v ``[1, N, kv_heads * head_dim]`` by head rounds.

    In a round, KV head h runs on ``cores_per_head`` cores, which share its queries by rows.  q, k and v are
    replicated, or cut so that a head's features lie on its cores, which then exchange them.  ``mask`` is replicated,
    added to the scores, and broadcasts to ``[1, heads, M, N]``; with ``causal`` query m sees keys ``0 .. m + N - M``.
    Each core ends with its share of its KV head's query features, all rows: the result's shard.
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
    rounds = prop_def(HeadsAttr)
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
        """Head counts, feature counts and encodings agree."""
        heads, kv_heads, dim = self.heads.value.data, self.kv_heads.value.data, self.head_dim.value.data
        if kv_heads < 1 or heads % kv_heads:
            raise VerifyException(f"{heads} query heads do not share {kv_heads} KV heads evenly")
        for value, count, what in ((self.q, heads, "query"), (self.k, kv_heads, "key"), (self.v, kv_heads, "value")):
            shape, shard = _shape(value), shard_of(value.type)
            if len(shape) != 3 or shape[0] != 1 or shape[2] != count * dim:
                raise VerifyException(f"{what} {shape} is not one sequence of {count} heads of {dim}")
            if shard is not None:
                shard.check(count * dim)
        if _shape(self.k) != _shape(self.v) or _shape(self.output) != _shape(self.q):
            raise VerifyException("keys and values, and query and result, have the same shapes")
        if self.mask is not None and shard_of(self.mask.type) is not None:
            raise VerifyException("the mask must be replicated")
        shard = shard_of(self.output.type)
        if shard is None:
            raise VerifyException("the result must be cut along its features")
        shard.check(heads * dim)
        self.rounds.check(kv_heads)


def _shape(value: SSAValue) -> tuple[int, ...]:
    type_ = value.type
    if not isinstance(type_, TensorType):
        raise VerifyException(f"expected a tensor, got {type_}")
    return type_.get_shape()
