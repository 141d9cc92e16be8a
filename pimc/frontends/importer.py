"""A model file or folder -> a module of `nn` primitives with two entry points, and everything else a binary
needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp

from pimc.frontends.decoder_state import decoder_module
from pimc.frontends.depth import EXPORTED, complete, stack_of
from pimc.frontends.model import Checkpoint, ImportedModel, TokenizerData
from pimc.frontends.weights import ModelWeights, absent_array, check_all_fp16
from pimc.ir import nn
from pimc.timings import stage

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from pimc.frontends.torch_export import DecoderShape


def checkpoint_of(source: object) -> Checkpoint:
    """A `transformers` model that is already loaded; a float32 copy is taken if it is in another precision."""
    import copy

    import torch
    from transformers import PreTrainedModel

    from pimc.frontends.huggingface import ENCODER_DECODER_TYPES, MODEL_TYPES, unsupported_type

    assert isinstance(source, PreTrainedModel)
    if source.config.model_type not in (*MODEL_TYPES, *ENCODER_DECODER_TYPES):
        raise unsupported_type(source.config.model_type)
    eos = source.config.eos_token_id
    eos_ids = sorted({item for item in (eos if isinstance(eos, list) else [eos]) if isinstance(item, int)})
    as_float = source if source.dtype == torch.float32 else copy.deepcopy(source).float()
    name = source.config.name_or_path or type(source).__name__
    return Checkpoint(as_float.eval(), TokenizerData(eos_ids=eos_ids), name)


def import_checkpoint(
    checkpoint: Checkpoint, *, max_seq: int, prefill_chunk: int, attention: str = "sdpa"
) -> ImportedModel:
    """Import a loaded causal language model; ``attention`` is the form to export, "sdpa" or "eager"."""
    from pimc.frontends.torch_export import decoder_shape, export_entries

    shape = decoder_shape(checkpoint.model, max_seq, prefill_chunk)
    names, weights = collect_weights(checkpoint)
    stack = stack_of(checkpoint.model)
    module: ModuleOp | None = None
    if stack is not None:
        with stack.shortened(checkpoint.model):
            programs = export_entries(checkpoint.model, replace(shape, layers=EXPORTED), attention)
        module = _build_module(programs, names, weights, shape, checkpoint.name)
        module = module if complete(module, stack) else None
    if module is None:
        programs = export_entries(checkpoint.model, shape, attention)
        module = _build_module(programs, names, weights, shape, checkpoint.name)
    used = {op.weight_name.data for op in module.walk() if isinstance(op, nn.ParamOp)}
    check_all_fp16(weights, sorted(used))
    tokenizer: TokenizerData = checkpoint.tokenizer
    return ImportedModel(
        module,
        weights,
        tokenizer.tokenizer_json,
        tokenizer.chat_template,
        tokenizer.eos_ids,
        tokenizer.special,
        checkpoint.name,
    )


def collect_weights(checkpoint: Checkpoint) -> tuple[dict[str, str], ModelWeights]:
    """Parameter path in the export wrapper -> weight name, and the weights: numpy views of the parameters, or deferred.

    Tied parameters have one name: that of the first module that holds them.
    """
    from pimc.frontends.fx_state import weight_array
    from pimc.frontends.torch_export import MODEL

    names: dict[str, str] = {}
    first: dict[int, str] = {}
    weights = ModelWeights({})
    for name, parameter in checkpoint.model.named_parameters(remove_duplicate=False):
        canonical = first.setdefault(id(parameter), name)
        names[f"{MODEL}.{name}"] = canonical
        if canonical != name:
            continue
        if checkpoint.shapes_only:
            weights.add(name, absent_array(tuple(parameter.shape)), absent=True)
        elif checkpoint.readers is not None:
            weights.add_deferred(name, tuple(parameter.shape), checkpoint.readers[name])
        else:
            weights.add(name, weight_array(parameter), absent=parameter.is_meta)
    return names, weights


@stage("convert to IR")
def _build_module(
    programs: Mapping[str, ExportedProgram],
    names: Mapping[str, str],
    weights: ModelWeights,
    shape: DecoderShape,
    name: str,
) -> ModuleOp:
    from pimc.frontends.aten import CONVERTERS
    from pimc.frontends.fx_values import CacheRef
    from pimc.frontends.graph import GraphImporter
    from pimc.frontends.tabulate import assign_columns, evaluate_tables, find_tabulated
    from pimc.frontends.torch_export import K_CACHE, MODEL, V_CACHE

    module = decoder_module(name, _sizes(shape))
    caches = {
        f"{prefix}{layer}": CacheRef(prefix.removesuffix("_"), layer)
        for prefix in (K_CACHE, V_CACHE)
        for layer in range(shape.layers)
    }
    for entry, program in programs.items():
        position = next(node for node in program.graph.nodes if node.name == "position")
        columns = assign_columns(find_tabulated(program, position))
        missing = {column.table: column.width for column in columns.values() if column.table not in weights}
        if missing and weights.some_absent:
            for table, width in missing.items():
                weights.add(table, absent_array((shape.slots, width)), absent=True)
        elif missing:
            tables = evaluate_tables(program, position, columns, shape.slots, shape.chunk)
            for table, value in tables.items():
                weights.add(table, value)
        importer = GraphImporter(program, entry, names, weights, CONVERTERS, columns, MODEL, caches=caches)
        module.body.block.add_op(importer.run())
    return module


def _sizes(shape: DecoderShape) -> dict[str, int]:
    """The sizes that the program states."""
    sizes = asdict(shape)
    slots, chunk = sizes.pop("slots"), sizes.pop("chunk")
    return {**sizes, "max_seq": slots, "prefill_chunk": chunk}


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """While open, `transformers` logs errors only and shows no progress bars."""
    try:
        from transformers.utils import logging
    except ImportError:
        yield
        return
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
