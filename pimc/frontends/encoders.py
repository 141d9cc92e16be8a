"""Hugging Face encoders -> the entry point ``main``: text (BERT and its kin), images (ViT), sentence embeddings.

Text encoders take ``input_ids`` and ``attention_mask`` of one shape, image encoders ``pixel_values``.  A folder made by
`sentence-transformers` with mean pooling has the output ``sentence_embedding`` besides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pimc.diagnostics import InputError, UsageError
from pimc.frontends.model import ImportedModel, TokenizerData
from pimc.timings import stage

if TYPE_CHECKING:
    import torch

TEXT_TYPES: Final = (
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet",
    "nomic_bert", "roberta", "xlm-roberta",
)  # fmt: skip
IMAGE_TYPES: Final = (
    "clip_vision_model", "convnext", "deit", "dinov2", "resnet", "siglip_vision_model", "swin", "vit",
)  # fmt: skip
ENCODER_TYPES: Final = (*TEXT_TYPES, *IMAGE_TYPES)

_IMAGE_SIDE: Final = 224
"""Of models whose configuration says nothing about it (ResNet)."""
_POOLING: Final = Path("1_Pooling", "config.json")


@dataclass(frozen=True)
class _Pooling:
    """What `sentence-transformers` does with the hidden states: the mean over the tokens, normalised or not."""

    normalise: bool


def encoder_type(path: Path) -> str | None:
    """The model type of a folder with an encoder; None for any other folder."""
    kind = folder_type(path)
    return kind if kind in ENCODER_TYPES else None


def folder_type(path: Path) -> str:
    """The model type that a folder states; empty where it states none."""
    kind = _read(path / "config.json").get("model_type")
    return kind if isinstance(kind, str) else ""


def import_encoder_folder(
    path: Path, shapes: Mapping[str, Sequence[int]], max_seq: int, *, shapes_only: bool = False
) -> ImportedModel:
    """Import a folder; ``shapes`` gives the shape of ``input_ids`` (else one row of ``max_seq`` tokens) or
    ``pixel_values``.  With ``shapes_only`` its weights are any numbers.
    """
    from pimc.frontends.huggingface import folder_tokenizer

    model = _make(path) if shapes_only else _load(path)
    imported = import_encoder(model, shapes, max_seq, _pooling_of(path))
    tokenizer: TokenizerData = folder_tokenizer(path)
    return replace(
        imported,
        name=path.resolve().name,
        tokenizer_json=tokenizer.tokenizer_json,
        special=tokenizer.special,
    )


def import_encoder(
    model: torch.nn.Module, shapes: Mapping[str, Sequence[int]], max_seq: int, pooling: _Pooling | None = None
) -> ImportedModel:
    """Import an encoder of `transformers`."""
    from pimc.frontends.torch_program import import_module

    name = "input_ids" if model.config.model_type in TEXT_TYPES else "pixel_values"
    if unknown := sorted(set(shapes) - {name}):
        raise UsageError(f"the model has no input '{unknown[0]}' whose shape is open", hint=f"it has: {name}")
    if name == "input_ids":
        inputs = _text_inputs(model, shapes.get(name), max_seq)
    else:
        inputs = _image_inputs(model, shapes.get(name))
    imported = import_module(_with_pooling(model, pooling) if pooling else model.eval(), (), inputs)
    return replace(imported, name=model.config.name_or_path or type(model).__name__)


def _text_inputs(model: torch.nn.Module, shape: Sequence[int] | None, max_seq: int) -> dict[str, object]:
    import torch

    positions = int(getattr(model.config, "max_position_embeddings", max_seq))
    if "roberta" in model.config.model_type or model.config.model_type in ("camembert", "mpnet"):
        # Their positions begin behind the number of the padding token.
        positions -= int(model.config.pad_token_id) + 1
    size = tuple(shape) if shape is not None else (1, min(max_seq, positions))
    if len(size) != 2 or not all(size) or size[1] > positions:
        raise UsageError(
            f"input_ids of shape {','.join(map(str, size))}", hint=f"batch,tokens with up to {positions} tokens"
        )
    device = next(model.parameters()).device
    ones = torch.ones(size, dtype=torch.long, device=device)
    return {"input_ids": ones, "attention_mask": ones.clone()}


def _image_inputs(model: torch.nn.Module, shape: Sequence[int] | None) -> dict[str, object]:
    import torch

    config = model.config
    side = getattr(config, "image_size", _IMAGE_SIDE)
    sides = side if isinstance(side, list | tuple) else (side, side)
    size = tuple(shape) if shape is not None else (1, config.num_channels, *sides)
    return {"pixel_values": torch.zeros(size, device=next(model.parameters()).device)}


def _make(path: Path) -> torch.nn.Module:
    """The model of a configuration, initialised as for training."""
    from transformers import AutoModel

    from pimc.frontends.blank import bad_config
    from pimc.frontends.huggingface import read_config

    config = read_config(path)
    try:
        model: torch.nn.Module = AutoModel.from_config(config)
    except Exception as error:  # it may raise anything
        raise bad_config(error, str(path / "config.json")) from error
    return model.float().eval()


@stage("read the weights")
def _load(path: Path) -> torch.nn.Module:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    from pimc.frontends.torch_program import first_line

    def load(**options: object) -> tuple[torch.nn.Module, list[str]]:
        model, report = AutoModel.from_pretrained(
            str(path),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
        return model, sorted(report["missing_keys"])

    try:
        model, missing = load()
        if missing and all("pooler" in name for name in missing):
            # The checkpoint was made without the layer for whole sentences: leave it out.
            model, missing = load(add_pooling_layer=False)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, KeyError) as error:
        raise InputError(
            f"the model cannot be loaded: {first_line(error)}",
            hint="the folder needs config.json and model.safetensors or pytorch_model.bin",
            where=str(path),
        ) from error
    if missing:
        raise InputError(f"the checkpoint lacks {len(missing)} weight(s), the first is {missing[0]!r}", where=str(path))
    return model.eval()


def _pooling_of(path: Path) -> _Pooling | None:
    """The pooling of a folder of `sentence-transformers`; None without one."""
    if not (path / _POOLING).is_file():
        return None
    modes = [
        name for name, value in _read(path / _POOLING).items() if name.startswith("pooling_mode") and value is True
    ]
    if modes != ["pooling_mode_mean_tokens"]:
        raise InputError(
            f"pooling by {', '.join(modes) or 'nothing'} is not supported", hint="mean pooling is", where=str(path)
        )
    try:
        steps = json.loads((path / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(step["type"]).rsplit(".", maxsplit=1)[-1] for step in steps]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"modules.json cannot be read: {error}", where=str(path)) from error
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise InputError(f"the steps {', '.join(kinds)} are not supported", where=str(path))
    return _Pooling(normalise="Normalize" in kinds)


def _with_pooling(model: torch.nn.Module, pooling: _Pooling) -> torch.nn.Module:
    import torch

    class SentenceEncoder(torch.nn.Module):  # type: ignore[misc]  # local because torch is imported late
        """An encoder and the mean of its hidden states over the tokens that the mask keeps."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            kept = attention_mask[..., None].to(hidden.dtype)
            mean = (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
            if pooling.normalise:
                mean = torch.nn.functional.normalize(mean, dim=-1)
            return {"last_hidden_state": hidden, "sentence_embedding": mean}

    return SentenceEncoder().eval()


def _read(path: Path) -> dict[str, object]:
    """A JSON object, empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
