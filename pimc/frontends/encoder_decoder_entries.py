"""The entry points of an encoder-decoder, exported by PyTorch: modules around the model, and what its attention is.

Attention over caches is exported as one operator, ``pimc::cached_attention``, by way of the interface that
`transformers` has for kernels: what it reads, up to which slot and with which bias is said, not recognised.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from pimc.frontends.cache_slots import slots_class
from pimc.frontends.decoder_state import CROSS_CACHES
from pimc.frontends.torch_export import K_CACHE, V_CACHE, exported, quiet_export
from pimc.ir.constants import LARGEST_HALF
from pimc.timings import stage

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_INTERFACE: Final = "pimc"
"""Name of our attention among those of `transformers`, while a model is exported."""
CACHES: Final = {
    K_CACHE: "k_cache", V_CACHE: "v_cache", **{f"{symbol}_": symbol for symbol in CROSS_CACHES},
}  # fmt: skip
"""Prefixes of the caches' buffers, and their symbols."""


@dataclass(frozen=True)
class Shape:
    """Sizes: decoder layers, heads of the decoder, slots of its own caches, positions of the encoder."""

    layers: int
    heads: int
    head_dim: int
    hidden: int
    vocab: int
    slots: int
    source: int


@dataclass(frozen=True)
class Family:
    """What differs between the kinds: where attention is, and whether the source is text of any length."""

    cross: Callable[[torch.nn.Module], list[torch.nn.Module]]
    keys_values: tuple[str, str]
    text: bool


FAMILIES: Final[Mapping[str, Family]] = {
    "t5": Family(lambda model: [block.layer[1].EncDecAttention for block in model.decoder.block], ("k", "v"), True),
    "whisper": Family(
        lambda model: [layer.encoder_attn for layer in model.get_decoder().layers], ("k_proj", "v_proj"), False
    ),
}


@stage("export with torch.export")
def export_entries(model: torch.nn.Module, family: Family, shape: Shape) -> dict[str, ExportedProgram]:
    """The exported programs ``encode`` and ``decode``."""
    import torch

    # The exporter takes one tensor given twice for one input.
    position, length = torch.zeros(1, dtype=torch.int32), torch.ones(1, dtype=torch.int32)
    token = torch.zeros(1, 1, dtype=torch.int32)
    if family.text:
        inputs: dict[str, tuple[torch.Tensor, ...]] = {
            "encode": (torch.zeros(1, shape.source, dtype=torch.int32), length),
            "decode": (token, position, length),
        }
    else:
        frames = shape.source * model.get_encoder().conv1.stride[0] * model.get_encoder().conv2.stride[0]
        inputs = {"encode": (torch.zeros(1, model.config.num_mel_bins, frames),), "decode": (token, position)}
    makers = {"encode": _encode, "decode": _decode}
    programs: dict[str, ExportedProgram] = {}
    with torch.no_grad(), quiet_export():
        for name, arguments in inputs.items():
            wrapper, attend = makers[name](model, family, shape)
            with _attention(model, attend):
                programs[name] = exported(wrapper.eval(), arguments, name)
    return programs


@contextlib.contextmanager
def _attention(model: torch.nn.Module, attend: Callable[..., object]) -> Iterator[None]:
    """While open, the model's attention is ``attend``, and it makes neither masks nor biases of its own."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = model.config._attn_implementation
    biased = [module for module in model.modules() if getattr(module, "has_relative_attention_bias", False)]
    ALL_ATTENTION_FUNCTIONS[_INTERFACE] = attend
    try:
        model.set_attn_implementation(_INTERFACE)
        for module in biased:
            module.has_relative_attention_bias = False
        yield
    finally:
        for module in biased:
            module.has_relative_attention_bias = True
        model.set_attn_implementation(before)
        del ALL_ATTENTION_FUNCTIONS[_INTERFACE]


@cache
def _cached_attention() -> Callable[..., torch.Tensor]:
    """The operator ``pimc::cached_attention``: its shapes only, because it is never run."""
    import torch

    def shape_alone(q: torch.Tensor, *_: object) -> torch.Tensor:
        """q ``[1, H, M, D]`` over caches ``[1, Hkv, S, D]``: ``[1, M, H, D]``.  The rest is that of `nn.attention`."""
        return torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format)

    schema = "(Tensor q, Tensor k, Tensor v, Tensor position, Tensor? bias, float scale, bool causal) -> Tensor"
    operator = torch.library.custom_op("pimc::cached_attention", shape_alone, mutates_args=(), schema=schema)
    operator.register_fake(shape_alone)
    found: Callable[..., torch.Tensor] = operator
    return found


def _with_caches(module: torch.nn.Module, shape: Shape, prefixes: tuple[str, ...]) -> None:
    """Give a module the buffers that stand for caches."""
    import torch

    for prefix in prefixes:
        slots = shape.slots if prefix in (K_CACHE, V_CACHE) else shape.source
        for layer in range(shape.layers):
            buffer = torch.zeros(1, shape.heads, slots, shape.head_dim)
            module.register_buffer(f"{prefix}{layer}", buffer, persistent=False)


def _encode(
    model: torch.nn.Module, family: Family, shape: Shape
) -> tuple[torch.nn.Module, Callable[..., tuple[torch.Tensor, None]]]:
    """The entry ``encode``, and attention of the encoder: of all positions, or of the first ``length``."""
    import torch

    masks: list[torch.Tensor] = []

    def attend(
        module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object, **options: object
    ) -> tuple[torch.Tensor, None]:
        mask = masks[-1] if masks else None
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=options["scaling"])
        return found.transpose(1, 2), None

    class Encode(torch.nn.Module):  # type: ignore[misc]  # local because torch is imported late
        """The encoder, and the keys and values of its hidden states for each layer of the decoder."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            _with_caches(self, shape, tuple(f"{symbol}_" for symbol in CROSS_CACHES))
            if family.text:
                first = model.encoder.block[0].layer[0].SelfAttention
                self.register_buffer("encoder_bias", first.compute_bias(shape.source, shape.source), persistent=False)

        def forward(self, source: torch.Tensor, length: torch.Tensor | None = None) -> torch.Tensor:
            if length is not None:
                seen = torch.arange(shape.source, dtype=torch.int32) < length
                masks.append(self.encoder_bias + torch.where(seen, 0.0, -LARGEST_HALF))
            hidden = self.model.get_encoder()(source).last_hidden_state
            positions = torch.arange(shape.source, dtype=torch.int32)
            for layer, attention in enumerate(family.cross(self.model)):
                for name, symbol in zip(family.keys_values, CROSS_CACHES, strict=True):
                    heads = getattr(attention, name)(hidden).view(1, shape.source, shape.heads, shape.head_dim)
                    getattr(self, f"{symbol}_{layer}").index_copy_(2, positions, heads.transpose(1, 2))
            return hidden

    return Encode(), attend


def _decode(
    model: torch.nn.Module, family: Family, shape: Shape
) -> tuple[torch.nn.Module, Callable[..., tuple[torch.Tensor, None]]]:
    """The entry ``decode``, and attention of the decoder: over its own slots, and over those of the encoder."""
    import torch
    from transformers.cache_utils import Cache, EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    across, slots = set(map(id, family.cross(model))), slots_class()
    entry: list[Decode] = []

    def attend(
        module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object, **options: object
    ) -> tuple[torch.Tensor, None]:
        decode = entry[0]
        own = id(module) not in across
        position = decode.position if own else decode.last
        bias = decode.position_bias if own and family.text else None
        return _cached_attention()(q, k, v, position, bias, options["scaling"], own), None

    class Decode(torch.nn.Module):  # type: ignore[misc]
        """One token; ``length``: positions of the encoder that there are."""

        position: torch.Tensor
        last: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            _with_caches(self, shape, tuple(CACHES))
            if family.text:
                first = model.decoder.block[0].layer[0].SelfAttention
                bias = first.compute_bias(1, shape.slots, past_seen_tokens=shape.slots - 1)  # of the last position
                self.register_buffer("position_bias", bias[0, :, 0].flip(1).contiguous(), persistent=False)

        def _layers(self, keys: str, values: str, positions: torch.Tensor | None) -> Cache:
            pairs = [(getattr(self, f"{keys}{i}"), getattr(self, f"{values}{i}")) for i in range(shape.layers)]
            layers = [slots(*pair, positions, int(pair[0].shape[2]) if positions is None else 0) for pair in pairs]
            return Cache(layers=layers)  # of a cache that is only read, all slots are filled

        def forward(
            self, tokens: torch.Tensor, position: torch.Tensor, length: torch.Tensor | None = None
        ) -> torch.Tensor:
            positions = position + torch.arange(1, dtype=torch.int32)
            self.position = position
            self.last = torch.full((1,), shape.source - 1, dtype=torch.int32) if length is None else length - 1
            across_k, across_v = (f"{symbol}_" for symbol in CROSS_CACHES)
            output = self.model(
                encoder_outputs=BaseModelOutput(torch.zeros(1, shape.source, shape.hidden)),
                decoder_input_ids=tokens,
                past_key_values=EncoderDecoderCache(
                    self._layers(K_CACHE, V_CACHE, positions), self._layers(across_k, across_v, None)
                ),
                use_cache=True,
                **({} if family.text else {"decoder_position_ids": positions[None]}),
            )
            return output.logits

    entry.append(Decode())
    return entry[0], attend
