"""The module of a decoder: what its entry points share, whichever frontend makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, TensorType, UnitAttr, f32, i64
from xdsl.dialects.ml_program import GlobalOp

from pimc.ir.locations import set_location, source_location

#: Caches of the keys and values that an encoder gives the decoder's layers.
CROSS_CACHES: Final = ("cross_k_cache", "cross_v_cache")


def decoder_module(name: str, sizes: Mapping[str, int], source: int | None = None) -> ModuleOp:
    """A module without entry points: the model's sizes, and the state that holds keys and values of all layers,
    ``k_cache`` and ``v_cache`` ``[L, S, Hkv, D]``.

    ``sizes`` has at least ``layers``, ``kv_heads``, ``head_dim``, ``max_seq`` (S) and ``prefill_chunk``.  With
    ``source`` the model has an encoder of so many positions, whose keys and values are ``cross_k_cache`` and
    ``cross_v_cache``.
    """
    numbers = {key: IntegerAttr(value, i64) for key, value in sizes.items()}
    module = ModuleOp([], attributes={"pimc.model": DictionaryAttr({"name": StringAttr(name), **numbers})})
    slots = dict.fromkeys(("k_cache", "v_cache"), sizes["max_seq"])
    if source is not None:
        slots |= dict.fromkeys(CROSS_CACHES, source)
    for symbol, count in slots.items():
        cache = TensorType(f32, (sizes["layers"], count, sizes["kv_heads"], sizes["head_dim"]))
        state = GlobalOp(StringAttr(symbol), cache, UnitAttr(), None, StringAttr("private"))
        module.body.block.add_op(set_location(state, source_location("entry")))
    return module
