"""The module of a decoder: what its entry points share, whichever frontend makes them."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, TensorType, UnitAttr, f32, i64
from xdsl.dialects.ml_program import GlobalOp

from pimc.ir.locations import set_location, source_location


def decoder_module(name: str, sizes: Mapping[str, int]) -> ModuleOp:
    """A module without entry points: the model's sizes, and the state that holds keys and values of all layers,
    ``k_cache`` and ``v_cache`` ``[L, S, Hkv, D]``.

    ``sizes`` has at least ``layers``, ``kv_heads``, ``head_dim``, ``max_seq`` (S) and ``prefill_chunk``.
    """
    numbers = {key: IntegerAttr(value, i64) for key, value in sizes.items()}
    module = ModuleOp([], attributes={"pimc.model": DictionaryAttr({"name": StringAttr(name), **numbers})})
    cache = TensorType(f32, (sizes["layers"], sizes["max_seq"], sizes["kv_heads"], sizes["head_dim"]))
    for symbol in ("k_cache", "v_cache"):
        state = GlobalOp(StringAttr(symbol), cache, UnitAttr(), None, StringAttr("private"))
        module.body.block.add_op(set_location(state, source_location("entry")))
    return module
