"""What every frontend returns: a module of `nn` primitives, its weights, and the tokenizer as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp

from pimc.frontends.weights import ModelWeights
from pimc.ir.source_map import SourceMap
from pimc.ir.stages import Stage
from pimc.ir.weights import WeightArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TokenizerData:
    """A tokenizer as plain data: JSON text for the `tokenizers` package, a Jinja chat template, token ids."""

    tokenizer_json: str | None = None
    chat_template: str | None = None
    eos_ids: list[int] = field(default_factory=list)
    special: dict[str, str] = field(default_factory=dict)
    """Special tokens by role: ``{"bos_token": "<s>", ...}``, as a chat template refers to them."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model: the PyTorch module in float32 (evaluation mode), its tokenizer, and a name.

    ``readers`` give the values of the parameters by name, where the module's are blank (:mod:`pimc.frontends.blank`);
    None: they are in the module.  ``shapes_only``: there are no values.
    """

    model: torch.nn.Module
    tokenizer: TokenizerData
    name: str
    readers: Mapping[str, Callable[[], WeightArray]] | None = None
    shapes_only: bool = False


@dataclass(frozen=True)
class ImportedModel:
    """An imported model, before any pass, or a dump of one, after some."""

    module: ModuleOp
    weights: ModelWeights
    tokenizer_json: str | None
    chat_template: str | None
    eos_ids: list[int]
    special: dict[str, str]
    name: str
    max_seq: int | None = None
    """Of a dump: the longest sequence that the model was imported for, and the tokens of a prefill run."""
    prefill_chunk: int | None = None
    start_ids: tuple[int, ...] = ()
    """Of an encoder-decoder, the tokens that the decoder begins with."""
    stage: Stage = Stage.IMPORTED
    """How far the module has come: a dump may have seen some passes."""
    source: SourceMap | None = None
    """Where the operations of a dump stand in its text."""
