"""Hugging Face encoder-decoders (T5, Whisper) -> the entry points ``encode`` and ``decode`` over a common state.

``encode`` takes what the encoder takes, writes the keys and values that each decoder layer attends to across to the
caches ``cross_k_cache`` and ``cross_v_cache``, once, and gives the encoder's hidden states.  ``decode(tokens [1, 1],
position [1])`` computes one token over these and over the caches of the decoder's own keys and values.  Text may be
shorter than what the program was made for: then both entries take its ``length`` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pimc.diagnostics import InputError, UsageError
from pimc.frontends.aten import CONVERTERS
from pimc.frontends.decoder_state import decoder_module
from pimc.frontends.encoder_decoder_entries import CACHES, FAMILIES, Shape, export_entries
from pimc.frontends.fx_values import CacheRef
from pimc.frontends.graph import GraphImporter
from pimc.frontends.importer import collect_weights
from pimc.frontends.model import Checkpoint, ImportedModel
from pimc.frontends.torch_export import MODEL
from pimc.frontends.weights import check_all_fp16
from pimc.ir import nn
from pimc.timings import stage

if TYPE_CHECKING:
    import torch


def import_encoder_decoder(checkpoint: Checkpoint, *, max_seq: int, source: int | None = None) -> ImportedModel:
    """Import a loaded model; ``max_seq``: tokens that the decoder's caches hold; ``source``: of text, the tokens that
    the encoder takes (else as many).

    Raises:
        InputError: sizes that the model does not have, or weights that do not fit fp16.
        UnsupportedModelError: operators without a conversion, all of them.
    """
    model = checkpoint.model
    family, shape = FAMILIES[model.config.model_type], _shape(model, max_seq, source)
    names, weights = collect_weights(checkpoint)
    sizes = {
        "layers": shape.layers, "hidden": shape.hidden, "heads": shape.heads, "kv_heads": shape.heads,
        "head_dim": shape.head_dim, "vocab": shape.vocab, "max_seq": shape.slots, "prefill_chunk": 1,
    }  # fmt: skip
    module = decoder_module(checkpoint.name, sizes, shape.source)
    caches = {f"{prefix}{i}": CacheRef(symbol, i) for prefix, symbol in CACHES.items() for i in range(shape.layers)}
    for entry, program in export_entries(model, family, shape).items():
        importer = GraphImporter(program, entry, names, weights, CONVERTERS, prefix=MODEL, caches=caches)
        module.body.block.add_op(importer.run())
    used = {op.weight_name.data for op in module.walk() if isinstance(op, nn.ParamOp)}
    check_all_fp16(weights, sorted(used))
    tokenizer = checkpoint.tokenizer
    start = model.config.decoder_start_token_id
    return ImportedModel(
        module,
        weights,
        tokenizer.tokenizer_json,
        None,
        tokenizer.eos_ids,
        tokenizer.special,
        checkpoint.name,
        prefill_chunk=1,
        start_ids=() if start is None else (int(start),),
    )


def import_encoder_decoder_folder(
    path: Path, shapes: Mapping[str, Sequence[int]], max_seq: int, model_type: str
) -> ImportedModel:
    """Import a folder; ``shapes`` may give the shape of ``source``."""
    from pimc.frontends.huggingface import folder_tokenizer

    checkpoint = Checkpoint(_load(path, model_type), folder_tokenizer(path), path.resolve().name)
    return import_encoder_decoder(checkpoint, max_seq=max_seq, source=source_length(shapes, model_type))


def source_length(shapes: Mapping[str, Sequence[int]], model_type: str) -> int | None:
    """The tokens that the encoder takes, by the shape of ``source``; UsageError for any other shape."""
    if unknown := sorted(set(shapes) - {"source"}):
        raise UsageError(f"the model has no input '{unknown[0]}' whose shape is open", hint="it has: source")
    shape = shapes.get("source")
    if shape is None:
        return None
    if not FAMILIES[model_type].text or len(shape) != 2 or shape[0] != 1:
        raise UsageError(f"source of shape {','.join(map(str, shape))}", hint="of a text model: 1,tokens")
    return int(shape[1])


@stage("read the weights")
def _load(path: Path, model_type: str) -> torch.nn.Module:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq

    kind = AutoModelForSeq2SeqLM if FAMILIES[model_type].text else AutoModelForSpeechSeq2Seq
    try:
        model, report = kind.from_pretrained(
            str(path), dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, KeyError) as error:
        raise InputError(
            f"the model cannot be loaded: {(str(error).strip().splitlines() or [type(error).__name__])[0]}",
            hint="the folder needs config.json and model.safetensors or pytorch_model.bin",
            where=str(path),
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"the checkpoint lacks {len(missing)} weight(s), the first is {missing[0]!r}", where=str(path))
    loaded: torch.nn.Module = model.eval()
    return loaded


def _shape(model: torch.nn.Module, max_seq: int, source: int | None) -> Shape:
    """Sizes from the configuration; InputError where the model has no such positions."""
    config = model.config
    if config.model_type == "t5":
        sizes = (config.num_decoder_layers, config.num_heads, config.d_kv, source or max_seq)
    else:
        if source not in (None, config.max_source_positions):
            raise InputError(f"the model's encoder has {config.max_source_positions} positions, not {source}")
        if max_seq > config.max_target_positions:
            raise InputError(
                f"max_seq is {max_seq}, the model has {config.max_target_positions} positions",
                hint="choose a smaller max_seq",
            )
        heads = config.decoder_attention_heads
        sizes = (config.decoder_layers, heads, config.d_model // heads, config.max_source_positions)
    layers, heads, head_dim, positions = sizes
    if max_seq < 1 or positions < 1:
        raise InputError(f"max_seq and the source's length must be positive, are {max_seq} and {positions}")
    return Shape(layers, heads, head_dim, config.d_model, config.vocab_size, max_seq, positions)
