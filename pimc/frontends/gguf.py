"""GGUF files -> a PyTorch model of `transformers`, and its weights, expanded to float32 when they are asked for.
 The header is read by :mod:`pimc.frontends.gguf_file`; block formats are expanded by the `gguf` package.
Which metadata key is which field of the model's configuration, and which tensor is which parameter, follows
the naming conventions of llama.cpp ("Standardized tensor names" in the GGUF specification).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pimc.diagnostics import InputError
from pimc.frontends.blank import blank_model
from pimc.frontends.checkpoint_files import StoredWeight
from pimc.frontends.gguf_file import GgufFile, TensorEntry, read_gguf
from pimc.frontends.gguf_tokenizer import convert_tokenizer
from pimc.frontends.model import Checkpoint
from pimc.ir.weights import WeightArray
from pimc.timings import stage

if TYPE_CHECKING:
    import gguf
    import torch

_BLOCK: Final = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)$")
_GLOBALS: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCK: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_IGNORED: Final = {"rope_freqs.weight"}


@dataclass(frozen=True)
class Architecture:
    """How a GGUF architecture maps to one of `transformers`."""

    model_type: str
    interleaved_rope: bool
    """llama.cpp stores the rows of q and k so that rotated pairs are neighbours; transformers splits heads
    in half.
    """


ARCHITECTURES: Final = {
    "llama": Architecture("llama", interleaved_rope=True),
    "qwen2": Architecture("qwen2", interleaved_rope=False),
    "qwen3": Architecture("qwen3", interleaved_rope=False),
}


def load_gguf(path: Path, *, shapes_only: bool = False) -> Checkpoint:
    """The model in a GGUF file, whose weights stay there until they are asked for.

    InputError if it is damaged or of an architecture or format not supported.
    """
    file = read_gguf(path)
    name = file.text("general.architecture")
    architecture = ARCHITECTURES.get(name or "")
    if name is None or architecture is None:
        raise InputError(
            f"GGUF architecture {name!r} is not supported",
            hint=f"supported are {', '.join(sorted(ARCHITECTURES))}",
            where=str(path),
        )
    fields = _config_fields(file, name)
    weights = _find_weights(file, architecture, fields)
    model, readers = _build(architecture.model_type, fields, weights, path)
    name = file.text("general.basename") or path.stem
    return Checkpoint(model, convert_tokenizer(file), name, readers, shapes_only=shapes_only)


def _config_fields(file: GgufFile, prefix: str) -> dict[str, int | float | bool]:
    """Fields of the `transformers` configuration."""

    def required(key: str) -> int:
        value = file.integer(f"{prefix}.{key}")
        if value is None or value <= 0:
            raise InputError(f"the GGUF file lacks {prefix}.{key}", where=str(file.path))
        return value

    heads = required("attention.head_count")
    hidden = required("embedding_length")
    if file.text(f"{prefix}.rope.scaling.type") not in (None, "none"):
        raise InputError("rope scaling in GGUF files is not supported", where=str(file.path))
    vocabulary = file.tensors.get("token_embd.weight")
    return {
        "hidden_size": hidden,
        "intermediate_size": required("feed_forward_length"),
        "num_hidden_layers": required("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.integer(f"{prefix}.attention.head_count_kv") or heads,
        "head_dim": file.integer(f"{prefix}.attention.key_length") or hidden // heads,
        "vocab_size": vocabulary.shape[-1] if vocabulary is not None and vocabulary.shape else 0,
        "max_position_embeddings": required("context_length"),
        "rms_norm_eps": file.number(f"{prefix}.attention.layer_norm_rms_epsilon") or 1e-6,
        "rope_theta": file.number(f"{prefix}.rope.freq_base") or 10000.0,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
    }


def _parameter_name(tensor: str) -> str | None:
    if tensor in _GLOBALS:
        return _GLOBALS[tensor]
    match = _BLOCK.match(tensor)
    if match is None or match[2] not in _IN_BLOCK:
        return None
    return f"model.layers.{match[1]}.{_IN_BLOCK[match[2]]}.{match[3]}"


@stage("read the weights")
def _find_weights(
    file: GgufFile, architecture: Architecture, fields: dict[str, int | float | bool]
) -> dict[str, StoredWeight]:
    """Every tensor of the file under its parameter name."""
    found: dict[str, StoredWeight] = {}
    size = file.path.stat().st_size
    for entry in file.tensors.values():
        if entry.name in _IGNORED:
            continue
        name = _parameter_name(entry.name)
        if name is None:
            raise InputError(f"tensor {entry.name!r} is not one that this architecture has", where=str(file.path))
        blocks = _blocks(file, entry, size)
        heads = None
        if architecture.interleaved_rope and name.rsplit(".", maxsplit=2)[1] in ("q_proj", "k_proj"):
            heads = int(fields["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"])
        found[name] = StoredWeight(blocks.shape, partial(_expand, blocks, heads))
    return found


@dataclass(frozen=True)
class _Blocks:
    """A tensor of a file, unexpanded: ``stored`` is its shape in bytes, ``shape`` in elements, rows first."""

    path: Path
    name: str
    kind: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    stored: tuple[int, ...]
    start: int


def _blocks(file: GgufFile, entry: TensorEntry, file_bytes: int) -> _Blocks:
    """Where a tensor is; InputError where it is of no format that can be expanded, or not wholly there."""
    import gguf

    try:
        kind = gguf.GGMLQuantizationType(entry.type_id)
        block, size = gguf.GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        raise InputError(f"tensor {entry.name!r} has unknown type {entry.type_id}", where=str(file.path)) from None
    shape = tuple(reversed(entry.shape))
    count = int(np.prod(shape, dtype=np.int64))
    if not shape or shape[-1] % block:
        raise InputError(f"tensor {entry.name!r}: shape {shape} is no multiple of {block}", where=str(file.path))
    start = file.data_offset + entry.offset
    stop = start + count // block * size
    if stop > file_bytes:
        raise InputError(
            f"the GGUF file is truncated: tensor {entry.name!r} ends at byte {stop}, the file has {file_bytes}",
            hint="download or copy the file again",
            where=str(file.path),
        )
    stored = (*shape[:-1], shape[-1] // block * size)
    try:
        gguf.dequantize(np.zeros(size, np.uint8), kind)
    except NotImplementedError:
        raise InputError(
            f"tensor {entry.name!r} has format {kind.name}, which cannot be expanded", where=str(file.path)
        ) from None
    return _Blocks(file.path, entry.name, kind, shape, stored, start)


def _expand(blocks: _Blocks, heads: int | None) -> npt.NDArray[np.float32]:
    """The values of a tensor; of a projection to ``heads`` whose rotary pairs are neighbours, halves."""
    import gguf

    data = np.memmap(blocks.path, np.uint8, "r", blocks.start, blocks.stored)
    values = np.asarray(gguf.dequantize(np.asarray(data), blocks.kind), np.float32).reshape(blocks.shape)
    return values if heads is None else _split_halves(values, heads)


def _split_halves(value: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head from neighbouring rotary pairs to halves: row 2i+j of a head becomes row j*D/2+i."""
    pairs = value.reshape(heads, value.shape[0] // heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(value.shape)


def _build(
    model_type: str, fields: dict[str, int | float | bool], weights: dict[str, StoredWeight], path: Path
) -> tuple[torch.nn.Module, dict[str, Callable[[], WeightArray]]]:
    """The `transformers` model with blank parameters, and what reads their values."""
    from transformers import AutoConfig

    theta = fields.pop("rope_theta")
    config = AutoConfig.for_model(model_type, **fields, rope_parameters={"rope_type": "default", "rope_theta": theta})
    model = blank_model(config, str(path))
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, shape in expected.items():
        have = weights.get(name)
        if have is None or have.shape != shape:
            found = "absent" if have is None else f"of shape {have.shape}"
            raise InputError(f"weight {name!r} must have shape {shape} and is {found}", where=str(path))
    if extra := sorted(set(weights) - set(expected)):
        raise InputError(f"the model has no parameter {extra[0]!r} for a tensor of the file", where=str(path))
    return model, {name: weights[name].read for name in expected}
