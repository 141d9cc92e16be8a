"""Hugging Face model folders -> a PyTorch model in float32 and the tokenizer as plain data.

Nothing is fetched from a network: a folder is complete or refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pimc.diagnostics import InputError
from pimc.frontends.blank import bad_config, blank_model
from pimc.frontends.checkpoint_files import readers_of, stored_weights
from pimc.frontends.encoders import ENCODER_TYPES
from pimc.frontends.model import Checkpoint, TokenizerData
from pimc.ir.weights import WeightArray
from pimc.timings import stage

if TYPE_CHECKING:
    import torch

MODEL_TYPES: Final = (
    "bloom", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "opt", "phi3", "qwen2", "qwen3",
)  # fmt: skip
"""Architectures whose decoder takes positions, a mask and a cache as the export wrapper gives them."""
ENCODER_DECODER_TYPES: Final = ("t5", "whisper")
"""Architectures with an encoder and a decoder that attends to it."""

_TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.json", "tokenizer.model")
_ROLES: Final = ("bos_token", "eos_token", "unk_token", "pad_token")


def load_folder(path: Path, *, shapes_only: bool = False) -> Checkpoint:
    """The model in a folder with ``config.json`` and, unless ``shapes_only``, weights; these stay in their files.

    InputError names what is missing or unsupported.
    """
    config = _read_json(path / "config.json", path)
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise unsupported_type(model_type, str(path / "config.json"))
    model = blank_model(read_config(path), str(path / "config.json"))
    tokenizer = _load_tokenizer(path, _eos_ids(path, config))
    name = path.resolve().name
    if shapes_only:
        return Checkpoint(model, tokenizer, name, shapes_only=True)
    if config.get("quantization_config"):
        raise InputError(
            "the checkpoint is quantised", hint="give one in float32, float16 or bfloat16, or GGUF", where=str(path)
        )
    return Checkpoint(model, tokenizer, name, _readers(model, path))


@stage("read the weights")
def _readers(model: torch.nn.Module, path: Path) -> Mapping[str, Callable[[], WeightArray]]:
    return readers_of(model, stored_weights(path), str(path))


def read_config(path: Path) -> object:
    """The configuration of a folder, as `transformers` reads it; InputError where it does not."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # it may raise anything
        raise bad_config(error, str(path / "config.json")) from error


def unsupported_type(model_type: object, where: str | None = None) -> InputError:
    """The error for a type of model that is neither a known language model nor a known encoder."""
    return InputError(
        f"model type {str(model_type)[:80]!r} is not supported",
        hint=f"language models: {', '.join(MODEL_TYPES)}; encoders: {', '.join(ENCODER_TYPES)};"
        f" encoder-decoders: {', '.join(ENCODER_DECODER_TYPES)}; of any other model,"
        " parts whose shapes are fixed: pimc.compile(model.get_encoder(), example_inputs), or their ONNX file",
        where=where,
    )


def folder_tokenizer(path: Path) -> TokenizerData:
    """The tokenizer in a folder, with the end-of-text tokens that its configuration files name."""
    config = _read_json(path / "config.json", path) if (path / "config.json").is_file() else {}
    return _load_tokenizer(path, _eos_ids(path, config))


def tokenizer_beside(folder: Path | None) -> TokenizerData:
    """The tokenizer beside a model's file, or in the folder above (where model hubs put it), with the end-of-text
    tokens that configuration files there name; none where there is none.
    """
    for path in () if folder is None else (folder, folder.parent):
        if any((path / name).is_file() for name in _TOKENIZER_FILES):
            return folder_tokenizer(path)
    return TokenizerData()


@stage("read the tokenizer")
def _load_tokenizer(path: Path, eos_ids: list[int]) -> TokenizerData:
    """``tokenizer.json`` as it is; a folder with older tokenizer files only is converted by `transformers`."""
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        return TokenizerData(eos_ids=eos_ids)
    config = _read_json(path / "tokenizer_config.json", path) if (path / "tokenizer_config.json").is_file() else {}
    special = {role: text for role in _ROLES if (text := _token_text(config.get(role))) is not None}
    template = config.get("chat_template")
    if (path / "chat_template.jinja").is_file():
        template = (path / "chat_template.jinja").read_text(encoding="utf-8")
    if (path / "tokenizer.json").is_file():
        text = (path / "tokenizer.json").read_text(encoding="utf-8")
    else:
        text = _convert_tokenizer(path)
    return TokenizerData(text, template if isinstance(template, str) else None, eos_ids, special)


def _convert_tokenizer(path: Path) -> str:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        return str(tokenizer.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise InputError(f"the tokenizer cannot be converted: {_first_line(error)}", where=str(path)) from error


def _token_text(value: object) -> str | None:
    """A special token as tokenizer_config.json states it: a string, or an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _eos_ids(path: Path, config: dict[str, object]) -> list[int]:
    generation = path / "generation_config.json"
    value = _read_json(generation, path).get("eos_token_id") if generation.is_file() else None
    if value is None:
        value = config.get("eos_token_id")
    found = value if isinstance(value, list) else [value]
    return sorted({item for item in found if isinstance(item, int)})


def _read_json(path: Path, folder: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"not a model folder: there is no {path.name}",
            hint="give a Hugging Face folder",
            where=str(folder),
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path.name} cannot be read: {_first_line(error)}", where=str(path)) from error
    if not isinstance(value, dict):
        raise InputError(f"{path.name} holds no JSON object", where=str(path))
    return value


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
