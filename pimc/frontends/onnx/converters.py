"""All converters of ONNX operators, by operator."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from pimc.frontends.onnx.context import Converter

MODULES: Final = (
    "attention",
    "contrib",
    "convolution",
    "decoder_ops",
    "elementwise",
    "indexing",
    "linear",
    "linear_attention",
    "losses",
    "norms",
    "pooling",
    "quantize",
    "recurrent",
    "reductions",
    "resize",
    "sampling",
    "shape",
    "signal",
)
"""Modules of this package with a ``TABLE``."""


def _collect() -> dict[str, Converter]:
    merged: dict[str, Converter] = {}
    for name in MODULES:
        for key, converter in import_module(f"pimc.frontends.onnx.{name}").TABLE.items():
            if key in merged:
                raise ValueError(f"ONNX operator {key} has two converters")
            merged[key] = converter
    return merged


CONVERTERS: Final = _collect()
