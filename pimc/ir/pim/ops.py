"""Operations of the ``pim`` dialect: the work of a model placed on domains and cut over cores.

Values without an encoding are replicated on every core; ``#pim.shard`` says which features of the last
dimension a core holds (see :mod:`pimc.ir.pim.attributes`).  Activations are ``[1, M, F]`` (batch, tokens,
features).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IndexType,
    IntegerAttr,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    i64,
)
from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    lazy_traits_def,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import (
    IsTerminator,
    MemoryReadEffect,
    MemoryWriteEffect,
    Pure,
    SingleBlockImplicitTerminator,
)
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import layout_of, shard_of
from pimc.ir.nn.base import shape_of as _shape
from pimc.ir.pim.attributes import GemvLayoutAttr, HeadsAttr, TokenType

AnyTensor = TensorType[Attribute]


def _require_replicated(value: SSAValue, what: str) -> None:
    if layout_of(value.type) is not None:
        raise VerifyException(f"{what} must be replicated, but is {value.type}")


def _require_by_heads(value: SSAValue, rounds: HeadsAttr, heads: int, what: str) -> None:
    """Raise VerifyException unless a value of ``heads`` heads is whole, or cut by the heads of the rounds."""
    layout, shape = layout_of(value.type), _shape(value)
    if layout is None:
        return
    if shape[-1] % heads or layout.cuts != {len(shape) - 1: rounds.shard(shape[-1] // heads)}:
        raise VerifyException(f"{what} must be whole or cut by heads, but is {value.type}")
    layout.check(shape)


class MatrixOp(IRDLOperation):
    """``results[i] = x . weights[i]^T (+ bias)`` for weights ``[N_i, K]`` that share the input ``x [1, M,
    K]``.

    ``x`` is replicated (that of a GEMM may be cut along one dimension: it is gathered in blocks of rows), result ``i``
    is ``[1, M, N_i]`` cut by its encoding.  ``bias_of[j]`` is the weight
    that operand ``biases[j]`` (``[N]``, replicated) belongs to.  The weights' slices are stacked in operand
    order, each its rounds in order, in the tile's local output space; ``layout`` (set by the layout pass)
    says where that stack lies in the banks.
    """

    x = operand_def(AnyTensor)
    weights = var_operand_def(AnyTensor)
    biases = var_operand_def(AnyTensor)
    bias_of = opt_prop_def(DenseArrayBase.constr(i64))
    layout = opt_prop_def(GemvLayoutAttr)
    outputs = var_result_def(AnyTensor)

    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    traits = traits_def(Pure())
    assembly_format = (
        "$x `,` `[` $weights `]` (`bias` `[` $biases^ `:` type($biases) `]`)? attr-dict `:` "
        "type($x) `,` `[` type($weights) `]` `->` type($outputs)"
    )

    def __init__(
        self,
        x: SSAValue,
        weights: Sequence[SSAValue],
        biases: Sequence[SSAValue | None],
        result_types: Sequence[Attribute],
    ) -> None:
        """``biases[i]`` is the bias of weight ``i`` or None."""
        owners = [index for index, bias in enumerate(biases) if bias is not None]
        given = [bias for bias in biases if bias is not None]
        bias_of = DenseArrayBase.from_list(i64, owners) if owners else None
        super().__init__(operands=[[x], weights, given], result_types=[result_types], properties={"bias_of": bias_of})

    def bias(self, index: int) -> SSAValue | None:
        """The bias of weight ``index``."""
        owners = () if self.bias_of is None else tuple(int(v) for v in self.bias_of.get_values())
        return self.biases[owners.index(index)] if index in owners else None

    @property
    def local_offsets(self) -> tuple[int, ...]:
        """First local output of each weight in a tile's stack (the same in all tiles), then the total."""
        offsets = [0]
        for output in self.outputs:
            shard = shard_of(output.type)
            offsets.append(offsets[-1] + (0 if shard is None else shard.max_local_size))
        return tuple(offsets)

    def verify_(self) -> None:
        """Shapes, encodings, biases and the layout agree."""
        cut = layout_of(self.x.type)
        if cut is not None:
            if not isinstance(self, GemmOp):
                raise VerifyException(f"the input must be replicated, but is {self.x.type}")
            cut.check(_shape(self.x))
        x = _shape(self.x)
        if len(self.weights) != len(self.outputs) or not self.weights:
            raise VerifyException("one result a weight, and at least one, is expected")
        for weight, output in zip(self.weights, self.outputs, strict=True):
            w = _shape(weight)
            if len(w) != 2 or w[1] != x[-1] or _shape(output) != (*x[:-1], w[0]):
                raise VerifyException(f"{x} . {w}^T does not give {_shape(output)}")
            shard = shard_of(output.type)
            if shard is None:
                raise VerifyException("a result must be cut along its features")
            shard.check(w[0])
        self._verify_biases()
        if self.layout is not None:
            layout = self.layout.layout
            if layout.k != x[-1] or layout.n_local != self.local_offsets[-1]:
                raise VerifyException(
                    f"layout [{layout.n_local}, {layout.k}] does not match the tile's slice "
                    f"[{self.local_offsets[-1]}, {x[-1]}]"
                )

    def _verify_biases(self) -> None:
        owners = () if self.bias_of is None else tuple(int(v) for v in self.bias_of.get_values())
        if len(owners) != len(self.biases) or len(set(owners)) != len(owners):
            raise VerifyException("bias_of must name one weight a bias")
        for owner, bias in zip(owners, self.biases, strict=True):
            if not 0 <= owner < len(self.weights) or prod(_shape(bias)) != _shape(self.weights[owner])[0]:
                raise VerifyException(f"bias {_shape(bias)} does not fit weight {owner}")


def is_bias(param: Operation) -> bool:
    """Whether a parameter is nothing but weights and biases of matrix operations: no core loads all of it."""
    return all(isinstance(use.operation, MatrixOp) for result in param.results for use in result.uses)


@irdl_op_definition
class GemvOp(MatrixOp):
    """One row times matrices in the HBM-PIM banks: ``x`` is ``[1, 1, K]``."""

    name = "pim.gemv"

    def verify_(self) -> None:
        """As MatrixOp, and a single row."""
        super().verify_()
        if prod(_shape(self.x)[:-1]) != 1:
            raise VerifyException("pim.gemv takes a single row; several rows are a pim.gemm")


@irdl_op_definition
class GemmOp(MatrixOp):
    """Rows times matrices on the tensor units: ``x`` is ``[1, M, K]``; the weights are read from the
    banks by layout.
    """

    name = "pim.gemm"


@irdl_op_definition
class KvAppendOp(IRDLOperation):
    """Write the new tokens' keys and values (``[1, M, kv_heads * head_dim]``, whole or cut by heads) into the caches.

    Token m goes to position ``position + m`` of ``layer``; by ``rounds``, each core keeps the slots it owns.
    """

    name = "pim.kv_append"
    keys = operand_def(AnyTensor)
    values = operand_def(AnyTensor)
    layer = operand_def(IndexType)
    position = operand_def(AnyTensor)
    k = prop_def(SymbolRefAttr)
    v = prop_def(SymbolRefAttr)
    rounds = prop_def(HeadsAttr)
    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(MemoryWriteEffect())
    assembly_format = (
        "$keys `,` $values `,` $layer `,` $position attr-dict `:` type($keys) `,` type($values) `,` type($position)"
    )

    def __init__(
        self,
        keys: SSAValue,
        values: SSAValue,
        layer: SSAValue,
        position: SSAValue,
        k: SymbolRefAttr,
        v: SymbolRefAttr,
        rounds: HeadsAttr,
    ) -> None:
        super().__init__(operands=[keys, values, layer, position], properties={"k": k, "v": v, "rounds": rounds})

    def verify_(self) -> None:
        """Keys and values are of one shape, whole or cut by heads."""
        heads = sum(r.heads for r in self.rounds.head_rounds)
        _require_by_heads(self.keys, self.rounds, heads, "the keys")
        _require_by_heads(self.values, self.rounds, heads, "the values")
        if _shape(self.keys) != _shape(self.values):
            raise VerifyException("keys and values differ in shape")


@irdl_op_definition
class AttentionOp(IRDLOperation):
    """Attention of new queries over the cached slots, head-wise on groups of cores (Algorithm 1).

    ``q`` is ``[1, M, heads * head_dim]``, whole or cut by heads (:meth:`HeadsAttr.shard`); query m sees slots ``0 ..
    position + m``; ``slopes``, ``window``, ``softcap`` and ``bias`` are those of `nn.attention`.  Each core of a head's
    group computes the partial maximum, sum and output over its own slots; the group exchanges them, and each core ends
    with its share of the head group's features: the result's shard.
    """

    name = "pim.attention"
    q = operand_def(AnyTensor)
    layer = operand_def(IndexType)
    position = operand_def(AnyTensor)
    bias = opt_operand_def(AnyTensor)
    k = prop_def(SymbolRefAttr)
    v = prop_def(SymbolRefAttr)
    heads = prop_def(IntegerAttr.constr(i64))
    kv_heads = prop_def(IntegerAttr.constr(i64))
    head_dim = prop_def(IntegerAttr.constr(i64))
    scale = prop_def(FloatAttr)
    causal = prop_def(BoolAttr)
    slopes = opt_prop_def(DenseArrayBase)
    window = opt_prop_def(IntegerAttr.constr(i64))
    softcap = opt_prop_def(FloatAttr)
    rounds = prop_def(HeadsAttr)
    output = result_def(AnyTensor)
    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(MemoryReadEffect())
    assembly_format = (
        "$q `,` $layer `,` $position (`bias` $bias^ `:` type($bias))? attr-dict `:` type($q) `,` type($position) `->` "
        "type($output)"
    )

    def __init__(
        self,
        operands: tuple[SSAValue, SSAValue, SSAValue],
        bias: SSAValue | None,
        properties: dict[str, Attribute],
        result_type: Attribute,
    ) -> None:
        """``operands``: q, layer, position; ``properties``: all of the op's."""
        given = [] if bias is None else [bias]
        super().__init__(operands=[*operands, given], properties=properties, result_types=[result_type])

    def verify_(self) -> None:
        """Head counts, feature counts and encodings agree."""
        heads, kv_heads, dim = self.heads.value.data, self.kv_heads.value.data, self.head_dim.value.data
        if kv_heads < 1 or heads % kv_heads:
            raise VerifyException(f"{heads} query heads do not share {kv_heads} KV heads evenly")
        if _shape(self.q)[-1] != heads * dim or _shape(self.output) != _shape(self.q):
            raise VerifyException(f"query {_shape(self.q)} is not {heads} heads of {dim}")
        _require_by_heads(self.q, self.rounds, kv_heads, "the query")
        if self.bias is not None and _shape(self.bias)[0] != heads:
            raise VerifyException(f"a bias {_shape(self.bias)} for {heads} heads")
        shard = shard_of(self.output.type)
        if shard is None:
            raise VerifyException("the result must be cut along its features")
        shard.check(heads * dim)
        self.rounds.check(kv_heads)


@irdl_op_definition
class EmbeddingOp(IRDLOperation):
    """Rows of a table: ``[1, M, F]`` replicated, for ``ids [1, M]`` (i32), or ids of any shape.

    The rows are cut over the tiles, ``rows_per_core`` each: the owner reads the row and multicasts it.  With
    ``replicated`` every tile holds the whole table and reads its own copy, at consecutive ids.  With ``wrap`` a
    negative id counts from the end (``nn.gather``).  The result may be cut along ``M``: each core has its rows.
    """

    name = "pim.embedding"
    table = operand_def(AnyTensor)
    ids = operand_def(AnyTensor)
    rows_per_core = prop_def(IntegerAttr.constr(i64))
    replicated = opt_prop_def(UnitAttr)
    wrap = opt_prop_def(UnitAttr)
    output = result_def(AnyTensor)
    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(Pure())
    assembly_format = "$table `,` $ids attr-dict `:` functional-type(operands, results)"

    def __init__(
        self,
        table: SSAValue,
        ids: SSAValue,
        rows_per_core: int,
        replicated: bool,
        result_type: Attribute,
        *,
        wrap: bool = False,
    ) -> None:
        super().__init__(
            operands=[table, ids],
            properties={
                "rows_per_core": IntegerAttr(rows_per_core, i64),
                "replicated": UnitAttr() if replicated else None,
                "wrap": UnitAttr() if wrap else None,
            },
            result_types=[result_type],
        )

    def verify_(self) -> None:
        """Shapes agree; the features of the result are whole."""
        table, ids = _shape(self.table), _shape(self.ids)
        if len(table) != 2 or _shape(self.output) != (*ids, table[1]):
            raise VerifyException(f"rows {ids} of a {table} table are not {_shape(self.output)}")
        layout = layout_of(self.output.type)
        if layout is not None:
            layout.check(_shape(self.output))
            several = len(layout.cuts) > 1 or (self.replicated is not None and prod(ids) != max(ids, default=1))
            if len(ids) in layout.cuts or several:
                raise VerifyException(f"the result may be cut along its rows only, but is {self.output.type}")
        if self.rows_per_core.value.data < 1:
            raise VerifyException("rows_per_core must be at least 1")


@irdl_op_definition
class SelectTokenOp(IRDLOperation):
    """Row ``length - 1`` of each sequence of ``x [B, M, F]``, which is cut along M, on every core: ``[B, 1, F]``
    (`nn.select_token`).
    """

    name = "pim.select_token"
    x = operand_def(AnyTensor)
    length = operand_def(AnyTensor)
    output = result_def(AnyTensor)
    traits = traits_def(Pure())
    assembly_format = "$x `,` $length attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, length: SSAValue) -> None:
        type_ = x.type
        assert isinstance(type_, TensorType)
        result = TensorType(type_.element_type, (_shape(x)[0], 1, _shape(x)[-1]))
        super().__init__(operands=[x, length], result_types=[result])

    def verify_(self) -> None:
        """The operand is cut along its rows, the result whole."""
        layout = layout_of(self.x.type)
        if layout is None or list(layout.cuts) != [1] or len(_shape(self.x)) != 3:
            raise VerifyException(f"x must be cut along its rows, but is {self.x.type}")
        layout.check(_shape(self.x))
        _require_replicated(self.output, "the result")
        if _shape(self.output) != (_shape(self.x)[0], 1, _shape(self.x)[-1]):
            raise VerifyException(f"the result {_shape(self.output)} is not one row a sequence of {_shape(self.x)}")


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """Results of a ``pim.async`` body."""

    name = "pim.yield"
    traits = lazy_traits_def(lambda: (IsTerminator(), Pure()))


@irdl_op_definition
class AsyncOp(IRDLOperation):
    """A body that runs on ``domain`` once the tokens ``after`` are complete, beside what follows in program
    order.

    Gives a token of its own completion and the body's yielded values, which may be used only behind a
    ``pim.await`` of that token (or in another ``pim.async`` that waits for it).
    """

    name = "pim.async"
    after = var_operand_def(TokenType)
    domain = prop_def(StringAttr)
    token = result_def(TokenType)
    values = var_result_def()
    body = region_def("single_block")
    traits = lazy_traits_def(lambda: (SingleBlockImplicitTerminator(YieldOp),))
    assembly_format = "$domain (`after` $after^)? (`->` type($values)^)? $body attr-dict"

    def __init__(
        self, domain: str, after: Sequence[SSAValue], body: Region | Block, result_types: Sequence[Attribute]
    ) -> None:
        region = body if isinstance(body, Region) else Region(body)
        super().__init__(
            operands=[after],
            properties={"domain": StringAttr(domain)},
            result_types=[TokenType(), result_types],
            regions=[region],
        )


@irdl_op_definition
class AwaitOp(IRDLOperation):
    """Block until the tokens are complete."""

    name = "pim.await"
    tokens = var_operand_def(TokenType)
    assembly_format = "$tokens attr-dict"

    def __init__(self, tokens: Sequence[SSAValue]) -> None:
        super().__init__(operands=[tokens])
