"""PyTorch decoders -> two exported programs over an explicit static KV cache.
 ``prefill(tokens [1, M], position [1], length [1])`` computes a chunk of M tokens that begins at an absolute
position and gives the logits of token ``length - 1``; ``decode(tokens [1, 1], position [1])`` computes one
token.  The caches are buffers ``k_cache_<layer>``, ``v_cache_<layer>`` of shape ``[1, Hkv, S, D]``; a chunk
is written to them before attention reads them, and a mask hides the slots behind each query's own position.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pimc.diagnostics import InputError
from pimc.frontends.cache_slots import slots_class
from pimc.timings import stage

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

K_CACHE: Final = "k_cache_"
V_CACHE: Final = "v_cache_"
MODEL: Final = "model"
"""Attribute of the wrapper that holds the user's model; parameter names are found below it."""


_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder that the program states as module attributes; ``slots`` is S, the size of the
    caches.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    slots: int
    chunk: int


def decoder_shape(model: torch.nn.Module, max_seq: int, prefill_chunk: int) -> DecoderShape:
    """Sizes from the model's configuration; InputError where the export cannot represent the model."""
    if max_seq < 1 or prefill_chunk < 1:
        raise InputError(f"max_seq and prefill_chunk must be positive, are {max_seq} and {prefill_chunk}")
    config = model.config
    slots = -(-max_seq // prefill_chunk) * prefill_chunk
    _check_supported(config, slots)
    heads = int(config.num_attention_heads)
    return DecoderShape(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocab=int(config.vocab_size),
        slots=slots,
        chunk=prefill_chunk,
    )


def _check_supported(config: object, slots: int) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise InputError("encoder-decoder models are not supported")
    if other := set(getattr(config, "layer_types", None) or ()) - {_FULL, _SLIDING}:
        raise InputError(f"layers of type {sorted(other)[0]!r} are not supported")
    limit = getattr(config, "max_position_embeddings", None)
    if isinstance(limit, int) and slots > limit:
        raise InputError(
            f"max_seq rounded up to whole prefill chunks is {slots}, the model has {limit} positions",
            hint="choose a smaller max_seq or a prefill chunk that divides it",
        )


@stage("export with torch.export")
def export_entries(model: torch.nn.Module, shape: DecoderShape, attention: str = "sdpa") -> dict[str, ExportedProgram]:
    """The exported programs ``prefill`` and ``decode``; ``attention`` is "sdpa" or "eager".

    Raises InputError with the exporter's reason where a model's control flow depends on data.
    """
    import torch

    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        attention = "eager"  # the other form leaves the cap out
    model.set_attn_implementation(attention)
    programs: dict[str, ExportedProgram] = {}
    # A model on the meta device has shapes alone; then everything is made there.
    meta = any(parameter.is_meta for parameter in model.parameters())
    with torch.device("meta") if meta else contextlib.nullcontext(), torch.no_grad(), quiet_export():
        wrapper = _wrapper(model, shape, attention).eval()
        one = torch.zeros(1, dtype=torch.int32)
        inputs = {
            "prefill": (torch.zeros(1, shape.chunk, dtype=torch.int32), one, torch.ones(1, dtype=torch.int32)),
            "decode": (torch.zeros(1, 1, dtype=torch.int32), one),
        }
        for name, arguments in inputs.items():
            programs[name] = exported(wrapper, arguments, "the model")
    return programs


def exported(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], what: str) -> ExportedProgram:
    """The exported program of a module on arguments; InputError with the exporter's reason where it has none."""
    import torch

    try:
        return torch.export.export(module, arguments, strict=False)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"torch.export cannot export {what}: {reason[0]}") from error


def _wrapper(model: torch.nn.Module, shape: DecoderShape, attention: str) -> torch.nn.Module:
    """A module with the entry points' signature around ``model``; classes are local because torch is
    imported late.
    """
    import torch
    from transformers.cache_utils import Cache

    parameters = inspect.signature(model.forward).parameters
    # Bloom takes no positions: it makes its mask and the bias of its heads from the length of the cache.
    own_positions = "position_ids" not in parameters

    window = _window(model.config)
    by_layer = _SLIDING in (getattr(model.config, "layer_types", None) or ())  # then a model takes a mask of each kind

    slots_of_layer = slots_class()

    class Entry(torch.nn.Module):  # type: ignore[misc]
        """Both entry points; decode gives no ``length``."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            for prefix in (K_CACHE, V_CACHE):
                for layer in range(shape.layers):
                    # Not zeros: nothing reads them, and pages that nothing touches take no memory.
                    cache = torch.empty(1, shape.kv_heads, shape.slots, shape.head_dim)
                    self.register_buffer(f"{prefix}{layer}", cache, persistent=False)

        def forward(
            self, tokens: torch.Tensor, position: torch.Tensor, length: torch.Tensor | None = None
        ) -> torch.Tensor:
            positions = position + torch.arange(tokens.shape[1], dtype=torch.int32)
            slots = torch.arange(shape.slots, dtype=torch.int32)
            masks = {_FULL: slots[None, :] <= positions[:, None]}
            if window is not None:
                masks[_SLIDING] = masks[_FULL] & (slots[None, :] > positions[:, None] - window)
            if attention == "eager":
                lowest = torch.finfo(torch.float32).min
                masks = {kind: torch.where(mask, 0.0, lowest) for kind, mask in masks.items()}
            by_kind = {kind: mask[None, None] for kind, mask in masks.items()}
            mask = by_kind if by_layer else by_kind[_FULL if window is None else _SLIDING]
            filled = positions[0] if own_positions else 0
            layers = [
                slots_of_layer(getattr(self, f"{K_CACHE}{i}"), getattr(self, f"{V_CACHE}{i}"), positions, filled)
                for i in range(shape.layers)
            ]
            given = {} if own_positions else {"attention_mask": mask, "position_ids": positions[None]}
            output = self.model(
                input_ids=tokens,
                **given,
                past_key_values=Cache(layers=layers),
                use_cache=True,
                **({} if length is None else {"logits_to_keep": length - 1}),
            )
            return output.logits

    if "logits_to_keep" not in parameters:
        raise InputError(f"{type(model).__name__} cannot compute the logits of one token alone")
    return Entry()


def _window(config: object) -> int | None:
    """The tokens that layers with a sliding window see; None where no layer has one."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return window if isinstance(window, int) and (kinds is None or _SLIDING in kinds) else None


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Without the exporter's warnings and log lines, which say nothing that a user could act on."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
