"""Attention over the KV cache, attention without a cache, rotary embedding, and the cache write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import override
from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    Float32Type,
    FloatAttr,
    IndexType,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    f32,
)
from xdsl.dialects.ml_program import GlobalOp
from xdsl.ir import Attribute, Operation
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, Pure, SymbolTable
from xdsl.utils.exceptions import VerifyException

from pimc.ir.nn.base import (
    Cost,
    IntegerAttrI64,
    NnOp,
    OpClass,
    Tensor,
    Value,
    as_tensor,
    broadcast_shapes,
    check,
    check_float,
    check_position,
    check_same_element,
    check_shape,
    construct,
    element_bytes,
    integer,
    shape_of,
    tensor_bytes,
    tensor_of,
)
from pimc.ir.nn.space import Access, Dim, Index, Space, Work, at

SlopesAttr = DenseArrayBase.constr(Float32Type())
"""Constraint of an ``array<f32: ...>`` attribute."""


def cache_type(op: Operation, symbol: SymbolRefAttr) -> Tensor | None:
    """Type of the ``ml_program.global`` that ``symbol`` names; None while ``op`` is in no module.

    Raises VerifyException where the module has no such mutable global.
    """
    root = op
    while (parent := root.parent_op()) is not None:
        root = parent
    if not root.has_trait(SymbolTable):
        return None
    found = SymbolTable.lookup_symbol(root, symbol)
    if not isinstance(found, GlobalOp):
        raise VerifyException(f"{op.name}: no ml_program.global {symbol} in the module")
    if found.is_mutable is None:
        raise VerifyException(f"{op.name}: {symbol} must be mutable")
    type_ = as_tensor(found.type, f"{op.name}: {symbol}")
    check_shape(type_, (None, None, None, None), f"{op.name}: cache {symbol}")
    return type_


def symbol_of(cache: str | SymbolRefAttr) -> SymbolRefAttr:
    """A symbol attribute from a name."""
    return cache if isinstance(cache, SymbolRefAttr) else SymbolRefAttr(cache)


def check_heads(heads: int, kv_heads: int, head_dim: int, what: str) -> None:
    """Head counts are positive and the query heads are a multiple of the key/value heads."""
    check(min(heads, kv_heads, head_dim) >= 1, f"{what}: heads, kv_heads and head_dim must be positive")
    check(heads % kv_heads == 0, f"{what}: {heads} heads are no multiple of {kv_heads} kv_heads")


@irdl_op_definition
class RopeOp(NnOp):
    """Rotary position embedding of every head: x ``[1, M, H*D]``, table ``[1, M, 2*R]`` with rows cos(R) |
    sin(R).

    Half-split form: ``x = (x1, x2)`` cut in the middle of a head, ``result = x * cos + (-x2, x1) * sin``.  Only the
    first R = ``rotary_dim`` features of a head are turned (by default all D = ``head_dim``), the others stay.
    Definition: Su et al., RoFormer, 2021, in the arrangement of the Llama models; partly, of GPT-NeoX.
    """

    name = "nn.rope"

    x = operand_def(TensorType)
    table = operand_def(TensorType)
    head_dim = prop_def(IntegerAttrI64)
    rotary_dim = opt_prop_def(IntegerAttrI64)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, table: Value, head_dim: int, rotary_dim: int | None = None) -> None:
        partly = None if rotary_dim in (None, head_dim) else integer(int(rotary_dim or 0))
        construct(self, [x, table], {"head_dim": integer(head_dim), "rotary_dim": partly})

    @property
    def turned(self) -> int:
        """Features of a head that are turned."""
        return self.head_dim.value.data if self.rotary_dim is None else self.rotary_dim.value.data

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, table = tensor_of(self.x, "nn.rope x"), tensor_of(self.table, "nn.rope table")
        check_float(x, "nn.rope x")
        check_shape(x, (1, None, None), "nn.rope x")
        size = self.head_dim.value.data
        turned = self.turned
        what = "head_dim" if self.rotary_dim is None else "rotary_dim"
        check(turned >= 2 and turned % 2 == 0, f"nn.rope {what} must be even and positive, is {turned}")
        check(turned <= size, f"nn.rope rotary_dim {turned} is more than head_dim {size}")
        check(
            x.get_shape()[2] % size == 0,
            f"nn.rope: {x.get_shape()[2]} features are no multiple of head_dim {size}",
        )
        check_shape(table, (1, x.get_shape()[1], 2 * turned), "nn.rope table")
        return [x]

    @override
    def space(self) -> Space:
        x, table = shape_of(self.x), shape_of(self.table)
        size = self.head_dim.value.data
        row, head, feature = Dim("m", x[1]), Dim("h", x[2] // size), Dim("d", size, "whole")
        turned = Dim("t", table[2], "whole")
        features = Index((("h", size), ("d", 1)))
        moved = Access(x, (*at(0, "m"), features))
        dims = (row, head, feature, turned)
        return Space(dims, (moved, Access(table, at(0, "m", "t"))), (moved,), (Work(3, ("m", "h", "d")),))


@irdl_op_definition
class CacheWriteOp(NnOp):
    """Write M tokens to a cache: ``cache[layer, position + m] = x[0, m]``; x ``[1, M, Hkv*D]``, cache ``[L,
    S, Hkv, D]``.

    ``position + M`` must not exceed S when it runs.
    """

    name = "nn.cache_write"
    CLASS: ClassVar[OpClass] = "memory"

    layer = operand_def(IndexType)
    x = operand_def(TensorType)
    position = operand_def(TensorType)
    cache = prop_def(SymbolRefAttr)

    traits = traits_def(MemoryWriteEffect())

    def __init__(self, cache: str | SymbolRefAttr, layer: Value, x: Value, position: Value) -> None:
        construct(self, [layer, x, position], {"cache": symbol_of(cache)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, "nn.cache_write x")
        check_shape(x, (1, None, None), "nn.cache_write x")
        check_position(tensor_of(self.position, "nn.cache_write position"), "nn.cache_write position")
        cache = cache_type(self, self.cache)
        if cache is not None:
            _, slots, heads, size = cache.get_shape()
            check_shape(x, (1, None, heads * size), "nn.cache_write x")
            check_same_element(x, cache, "nn.cache_write")
            tokens = x.get_shape()[1]
            check(tokens <= slots, f"nn.cache_write: {tokens} tokens do not fit a cache of {slots}")
        return []

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        dims = (Dim("m", shape[1]), Dim("f", shape[2]))
        return Space(dims, (None, Access(shape, at(0, "m", "f")), Access((1,), at(0))), ())

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Bytes read and written."""
        return Cost(0, 2 * tensor_bytes(self.x.type))


@irdl_op_definition
class AttentionOp(NnOp):
    """Grouped-query attention over the KV caches: q ``[1, M, H*D]``, caches ``[L, S, Hkv, D]``, result ``[1,
    M, H*D]``.

    Query m stands at absolute position ``p = position + m`` and attends to cache slots ``0 .. p`` (with
    ``causal`` false: to ``0 .. position + M - 1``).  Head h reads key/value head ``h // (H / Hkv)``.  Scores
    are ``scale * q . k``, then softmax, then the weighted sum of v.  With ``slopes`` (one a head, ALiBi: Press et al.,
    Train Short, Test Long, 2022) the score of slot s grows by ``slope * (s - p)``.  With ``window`` (a sliding window,
    of causal attention) query m sees the last ``window`` of its slots alone: ``max(0, p - window + 1) .. p``.  With
    ``softcap`` a scaled score s becomes ``softcap * tanh(s / softcap)`` (before slopes, bias and masks).  With ``bias``
    ``[H, S]`` (of causal attention: relative positions, as T5 has them) the score of slot s grows by
    ``bias[h, p - s]``.  The caches are read after the writes that precede the operator in program order.
    """

    name = "nn.attention"
    CLASS: ClassVar[OpClass] = "gemv"

    q = operand_def(TensorType)
    layer = operand_def(IndexType)
    position = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    k = prop_def(SymbolRefAttr)
    v = prop_def(SymbolRefAttr)
    heads = prop_def(IntegerAttrI64)
    kv_heads = prop_def(IntegerAttrI64)
    head_dim = prop_def(IntegerAttrI64)
    scale = prop_def(FloatAttr[Float32Type])
    causal = prop_def(BoolAttr)
    slopes = opt_prop_def(SlopesAttr)
    window = opt_prop_def(IntegerAttrI64)
    softcap = opt_prop_def(FloatAttr[Float32Type])
    result = result_def(TensorType)

    traits = traits_def(MemoryReadEffect())

    def __init__(
        self,
        q: Value,
        layer: Value,
        position: Value,
        bias: Value | None = None,
        *,
        k: str | SymbolRefAttr,
        v: str | SymbolRefAttr,
        heads: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        causal: bool = True,
        slopes: Sequence[float] | None = None,
        window: int | None = None,
        softcap: float | None = None,
    ) -> None:
        properties: dict[str, Attribute | None] = {"k": symbol_of(k), "v": symbol_of(v)}
        if slopes is not None:
            properties["slopes"] = DenseArrayBase.from_list(f32, list(slopes))
        properties["window"] = None if window is None else integer(window)
        properties["softcap"] = None if softcap is None else FloatAttr(softcap, f32)
        properties |= head_properties(heads, kv_heads, head_dim, scale, causal)
        construct(self, [q, layer, position, [bias] if bias is not None else []], properties)

    @override
    def infer_types(self) -> Sequence[Attribute]:
        q = tensor_of(self.q, "nn.attention q")
        check_float(q, "nn.attention q")
        heads, kv_heads, size = (a.value.data for a in (self.heads, self.kv_heads, self.head_dim))
        check_heads(heads, kv_heads, size, "nn.attention")
        check_shape(q, (1, None, heads * size), "nn.attention q")
        given = heads if self.slopes is None else len(self.slopes)
        check(given == heads, f"nn.attention: {given} slopes for {heads} heads")
        if self.window is not None:
            check(self.window.value.data >= 1, f"nn.attention: a window of {self.window.value.data} slots")
            check(bool(self.causal.value.data), "nn.attention: a window needs causal attention")
        if self.softcap is not None:
            check(self.softcap.value.data > 0, f"nn.attention: softcap {self.softcap.value.data} is not positive")
        check_position(tensor_of(self.position, "nn.attention position"), "nn.attention position")
        if self.bias is not None:
            cache = cache_type(self, self.k)
            slots = None if cache is None else cache.get_shape()[1]
            check_shape(tensor_of(self.bias, "nn.attention bias"), (heads, slots), "nn.attention bias")
            check(bool(self.causal.value.data), "nn.attention: a bias by distance needs causal attention")
        for symbol in (self.k, self.v):
            cache = cache_type(self, symbol)
            if cache is not None:
                check_shape(cache, (None, None, kv_heads, size), f"nn.attention cache {symbol}")
                check_same_element(q, cache, "nn.attention")
        return [q]

    @override
    def space(self) -> Space:
        cache = cache_type(self, self.k)
        keys = shape_of(self.q)[1] if cache is None else cache.get_shape()[1]
        heads, size = self.heads.value.data, self.head_dim.value.data
        q = Access(shape_of(self.q), (*at(0, "m"), Index((("h", size), ("d", 1)))))
        result = Access(shape_of(self.q), (*at(0, "m"), Index((("h", size), ("e", 1)))))
        dims = attention_dims(shape_of(self.q)[1], keys, size, Dim("h", heads))
        operands = [q, None, Access((1,), at(0))]
        if self.bias is not None:  # which distances follows from the position
            dims = (*dims, Dim("t", shape_of(self.bias)[1], "whole"))
            operands.append(Access(shape_of(self.bias), at("h", "t")))
        return Space(dims, tuple(operands), (result,), attention_work("h"))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Scores, softmax and weighted sum for ``context`` cached positions (default: all)."""
        q = tensor_of(self.q)
        if context is None:
            cache = cache_type(self, self.k)
            context = cache.get_shape()[1] if cache is not None else q.get_shape()[1]
        if self.window is not None:  # all queries together see window + M - 1 slots
            context = min(context, self.window.value.data + q.get_shape()[1] - 1)
        size, kv_heads = self.head_dim.value.data, self.kv_heads.value.data
        moved = 2 * context * kv_heads * size * element_bytes(q.element_type)
        return Cost(self.space().flops({"n": range(context)}), moved + 2 * tensor_bytes(q))

    @override
    def op_class(self) -> OpClass:
        return "gemv" if tensor_of(self.q).get_shape()[1] == 1 else "gemm"


@irdl_op_definition
class AttentionFullOp(NnOp):
    """Attention without a cache (encoders): q ``[B, M, H*D]``, k, v ``[B, N, Hkv*D]``, result ``[B, M,
    H*D]``; a sequence attends to itself.

    ``mask`` is added to the scores and broadcasts to ``[B, H, M, N]``; with ``causal`` query m attends to
    keys ``0 .. m + N - M``.  With ``relative`` the mask is ``[1, H, 1, M + N - 1]``, by how far a key is behind a
    query: that of key n and query m is at ``n - m + M - 1``.
    """

    name = "nn.attention_full"
    CLASS: ClassVar[OpClass] = "gemm"

    q = operand_def(TensorType)
    k = operand_def(TensorType)
    v = operand_def(TensorType)
    mask = opt_operand_def(TensorType)
    heads = prop_def(IntegerAttrI64)
    kv_heads = prop_def(IntegerAttrI64)
    head_dim = prop_def(IntegerAttrI64)
    scale = prop_def(FloatAttr[Float32Type])
    causal = prop_def(BoolAttr)
    relative = opt_prop_def(UnitAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(
        self,
        q: Value,
        k: Value,
        v: Value,
        mask: Value | None = None,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        causal: bool = False,
        relative: bool = False,
    ) -> None:
        properties = head_properties(heads, kv_heads, head_dim, scale, causal)
        properties["relative"] = UnitAttr() if relative else None
        construct(self, [q, k, v, [mask] if mask is not None else []], properties)

    @override
    def infer_types(self) -> Sequence[Attribute]:
        q, k, v = (tensor_of(getattr(self, name), f"nn.attention_full {name}") for name in ("q", "k", "v"))
        check_float(q, "nn.attention_full q")
        check_same_element(q, k, "nn.attention_full q and k")
        check_same_element(q, v, "nn.attention_full q and v")
        heads, kv_heads, size = (a.value.data for a in (self.heads, self.kv_heads, self.head_dim))
        check_heads(heads, kv_heads, size, "nn.attention_full")
        check_shape(q, (None, None, heads * size), "nn.attention_full q")
        check_shape(k, (q.get_shape()[0], None, kv_heads * size), "nn.attention_full k")
        check_shape(v, k.get_shape(), "nn.attention_full v")
        if self.mask is not None:
            full = (q.get_shape()[0], heads, q.get_shape()[1], k.get_shape()[1])
            mask = tensor_of(self.mask, "nn.attention_full mask")
            if self.relative is not None:
                check_shape(mask, (1, heads, 1, full[2] + full[3] - 1), "nn.attention_full mask")
                return [q]
            fits = broadcast_shapes([mask.get_shape(), full]) == full
            check(fits, f"nn.attention_full mask {mask} does not broadcast to {full}")
        return [q]

    @override
    def space(self) -> Space:
        q, k = shape_of(self.q), shape_of(self.k)
        kv_heads, size = self.kv_heads.value.data, self.head_dim.value.data
        shared = self.heads.value.data // kv_heads
        dims = (Dim("b", q[0]), *attention_dims(q[1], k[1], size, Dim("g", kv_heads), Dim("r", shared)))
        head = (("g", shared), ("r", 1))
        in_row = tuple((name, factor * size) for name, factor in head)
        operands = [
            Access(q, (*at("b", "m"), Index((*in_row, ("d", 1))))),
            Access(k, (*at("b", "n"), Index((("g", size), ("d", 1))))),
            Access(k, (*at("b", "n"), Index((("g", size), ("e", 1))))),
        ]
        if self.mask is not None:
            mask = shape_of(self.mask)
            apart = Index((("n", 1), ("m", -1)), q[1] - 1)
            last = (Index(), apart) if self.relative is not None else at("m", "n")
            full = (*at("b"), Index(head), *last)[4 - len(mask) :]
            operands.append(
                Access(mask, tuple(Index() if size == 1 else index for size, index in zip(mask, full, strict=True)))
            )
        result = Access(q, (*at("b", "m"), Index((*in_row, ("e", 1)))))
        return Space(dims, tuple(operands), (result,), attention_work("b", "g", "r"))

    @override
    def op_class(self) -> OpClass:
        return "gemv" if tensor_of(self.q).get_shape()[1] == 1 else "gemm"


def attention_dims(rows: int, keys: int, head_dim: int, *heads: Dim) -> tuple[Dim, ...]:
    """Queries, heads, keys, features of a score (d), features of a result (e)."""
    depth, found = Dim("d", head_dim, "reduced", "sum"), Dim("e", head_dim)
    return (Dim("m", rows), *heads, Dim("n", keys, "reduced", "softmax"), depth, found)


def attention_work(*heads: str) -> tuple[Work, ...]:
    """Two products, and the softmax of each score."""
    pair = ("m", *heads, "n")
    return (Work(2, (*pair, "d")), Work(2, (*pair, "e")), Work(5, pair))


def head_properties(
    heads: int, kv_heads: int, head_dim: int, scale: float, causal: bool
) -> dict[str, Attribute | None]:
    """The attributes that the attention operators share."""
    return {
        "heads": integer(heads),
        "kv_heads": integer(kv_heads),
        "head_dim": integer(head_dim),
        "scale": FloatAttr(scale, f32),
        "causal": BoolAttr.from_bool(causal),
    }
