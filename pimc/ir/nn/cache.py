"""Reading a KV cache as a tensor: what imported attention does before it is raised to :class:`AttentionOp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import override
from xdsl.dialects.builtin import IndexType, SymbolRefAttr, TensorType
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import MemoryReadEffect

from pimc.ir.nn.attention import cache_type, symbol_of
from pimc.ir.nn.base import (
    Cost,
    NnOp,
    OpClass,
    Tensor,
    Value,
    check_same_element,
    check_shape,
    construct,
    shape_of,
    tensor_bytes,
    tensor_of,
)
from pimc.ir.nn.space import Space, made


@irdl_op_definition
class CacheReadOp(NnOp):
    """All slots of one layer of a cache: result ``[1, S, Hkv, D]`` of a cache ``[L, S, Hkv, D]``.

    The cache is read after the writes that precede the operator in program order; later writes do not change the
    result.
    """

    name = "nn.cache_read"
    CLASS: ClassVar[OpClass] = "memory"

    layer = operand_def(IndexType)
    cache = prop_def(SymbolRefAttr)
    result = result_def(TensorType)

    traits = traits_def(MemoryReadEffect())

    def __init__(self, cache: str | SymbolRefAttr, layer: Value, type_: Tensor) -> None:
        construct(self, [layer], {"cache": symbol_of(cache)}, [type_])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        result = tensor_of(self.result, "nn.cache_read result")
        check_shape(result, (1, None, None, None), "nn.cache_read result")
        cache = cache_type(self, self.cache)
        if cache is not None:
            check_shape(result, (1, *cache.get_shape()[1:]), "nn.cache_read result")
            check_same_element(result, cache, "nn.cache_read")
        return [result]

    @override
    def space(self) -> Space:
        return made(shape_of(self.result), len(self.operands))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Bytes read and written."""
        return Cost(0, 2 * tensor_bytes(self.result.type))
