"""All kinds of input, by name."""

from __future__ import annotations

from attack import binaries, onnx_models, texts, words
from attack.case import Kind

KINDS: tuple[Kind, ...] = (*words.KINDS, *binaries.KINDS, *texts.KINDS, *onnx_models.KINDS)
