"""``import_onnx``: an ONNX model as a module of `nn` operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx
from xdsl.dialects.builtin import ModuleOp

from pimc.diagnostics import InputError
from pimc.frontends.model import ImportedModel
from pimc.frontends.onnx.caches import find_decoder
from pimc.frontends.onnx.checks import check, opsets_of
from pimc.frontends.onnx.converters import CONVERTERS
from pimc.frontends.onnx.decoder import import_decoder
from pimc.frontends.onnx.elements import Array
from pimc.frontends.onnx.function import build_main
from pimc.frontends.onnx.graph import GraphBuilder
from pimc.frontends.onnx.load import load_model, prepare, stored_tensors
from pimc.frontends.weights import ModelWeights

_NOTHING: Final[Mapping[str, Array]] = MappingProxyType({})
_NO_SHAPES: Final[Mapping[str, Sequence[int]]] = MappingProxyType({})


def import_onnx(
    source: Path | str | onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] = _NO_SHAPES,
    bind: Mapping[str, Array] = _NOTHING,
    max_seq: int = 1024,
    prefill_chunk: int = 16,
) -> ImportedModel:
    """Import a model as the entry point ``main``; a decoder with past keys and values as ``prefill`` and ``decode``.

    Args:
        source: a file, or a model in memory.
        shapes: sizes of inputs with symbolic dimensions, by name.
        bind: values of inputs that the graph's shapes depend on; they are inputs no more.
        max_seq: positions of a decoder's caches.
        prefill_chunk: tokens of a decoder's ``prefill``.

    Raises:
        UnsupportedModelError: everything in the model that has no conversion.
        InputError: the file is missing, damaged or hostile, or a shape is not fixed.
    """
    model, folder = load_model(source)
    where = None if isinstance(source, onnx.ModelProto) else str(source)
    found = find_decoder(model) if not bind and not shapes else None
    if found is not None:
        return import_decoder(*found, folder, where, max_seq=max_seq, prefill_chunk=prefill_chunk)
    unknown = sorted(set(bind) - {value.name for value in model.graph.input})
    if unknown:
        names = ", ".join(value.name for value in model.graph.input)
        raise InputError(f"the model has no input {unknown[0]!r} to bind", hint=f"it has {names}", where=where)
    given = {name: np.shape(value) for name, value in bind.items()}
    fixed = prepare(model, {**given, **shapes}, where)
    tensors = stored_tensors(fixed, folder, where)
    check(fixed, where)
    weights = ModelWeights({})
    function = build_main(fixed.graph, tensors, bind, GraphBuilder(weights, CONVERTERS, opsets_of(fixed)))
    return ImportedModel(ModuleOp([function]), weights, None, None, [], {}, model.graph.name or "model")
