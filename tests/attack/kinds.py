"""All kinds of input, by name."""

from __future__ import annotations

from attack import binaries, onnx_models, texts
from attack.case import Kind

KINDS: tuple[Kind, ...] = (*binaries.KINDS, *texts.KINDS, *onnx_models.KINDS)
