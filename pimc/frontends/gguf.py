"""GGUF files -> a PyTorch model of `transformers` with dequantised float32 weights.
 The header is read by :mod:`pimc.frontends.gguf_file`; block formats are expanded by the `gguf` package.
Which metadata key is which field of the model's configuration, and which tensor is which parameter, follows
the naming conventions of llama.cpp ("Standardized tensor names" in the GGUF specification).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pimc.diagnostics import InputError
from pimc.frontends.gguf_file import GgufFile, TensorEntry, read_gguf
from pimc.frontends.gguf_tokenizer import convert_tokenizer
from pimc.frontends.model import Checkpoint
from pimc.timings import stage

if TYPE_CHECKING:
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


def load_gguf(path: Path) -> Checkpoint:
    """The model in a GGUF file; InputError if it is damaged or of an architecture or format not supported."""
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
    weights = _load_weights(file, architecture, fields)
    model = _build(architecture.model_type, fields, weights, path)
    return Checkpoint(model, convert_tokenizer(file), file.text("general.basename") or path.stem)


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
def _load_weights(
    file: GgufFile, architecture: Architecture, fields: dict[str, int | float | bool]
) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor of the file as float32 under its parameter name."""
    raw = file.raw()
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for entry in file.tensors.values():
        if entry.name in _IGNORED:
            continue
        name = _parameter_name(entry.name)
        if name is None:
            raise InputError(f"tensor {entry.name!r} is not one that this architecture has", where=str(file.path))
        value = _expand(file, entry, raw)
        if architecture.interleaved_rope and name.rsplit(".", maxsplit=2)[1] in ("q_proj", "k_proj"):
            key = "num_attention_heads" if ".q_proj." in name else "num_key_value_heads"
            value = _split_halves(value, int(fields[key]))
        weights[name] = value
    return weights


def _expand(file: GgufFile, entry: TensorEntry, raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The values of a tensor, rows first."""
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
    if stop > raw.size:
        raise InputError(
            f"the GGUF file is truncated: tensor {entry.name!r} ends at byte {stop}, the file has {raw.size}",
            hint="download or copy the file again",
            where=str(file.path),
        )
    data = raw[start:stop].reshape(*shape[:-1], shape[-1] // block * size)
    try:
        values = gguf.dequantize(np.asarray(data), kind)
    except NotImplementedError:
        raise InputError(
            f"tensor {entry.name!r} has format {kind.name}, which cannot be expanded", where=str(file.path)
        ) from None
    return np.array(values, dtype=np.float32, copy=None if values.flags.writeable else True).reshape(shape)


def _split_halves(value: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head from neighbouring rotary pairs to halves: row 2i+j of a head becomes row j*D/2+i."""
    pairs = value.reshape(heads, value.shape[0] // heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(value.shape)


@stage("read the weights")
def _build(
    model_type: str,
    fields: dict[str, int | float | bool],
    weights: dict[str, npt.NDArray[np.float32]],
    path: Path,
) -> torch.nn.Module:
    """The `transformers` model around the weights, which are not copied."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    theta = fields.pop("rope_theta")
    config = AutoConfig.for_model(model_type, **fields, rope_parameters={"rope_type": "default", "rope_theta": theta})
    with no_init_weights():
        model: torch.nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    expected = model.state_dict()
    if fields["tie_word_embeddings"]:
        weights = {
            **weights,
            "lm_head.weight": weights.get("model.embed_tokens.weight", np.zeros(0, np.float32)),
        }
    for name, have in expected.items():
        value = weights.get(name)
        if value is None or value.shape != tuple(have.shape):
            shape = "absent" if value is None else f"of shape {value.shape}"
            raise InputError(f"weight {name!r} must have shape {tuple(have.shape)} and is {shape}", where=str(path))
    if extra := sorted(set(weights) - set(expected)):
        raise InputError(f"the model has no parameter {extra[0]!r} for a tensor of the file", where=str(path))
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    model.load_state_dict(tensors, assign=True)
    model.tie_weights()
    return model.eval()
