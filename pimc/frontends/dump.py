"""IR as a source: a dump of any stage, or `nn` written by hand, with its weights and its tokenizer.

What is no IR lies in one file beside it, ``model.safetensors``: the weights, and as metadata what text generation
needs.  Both may come from anywhere: the module is verified, the weights it names must be there in its shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr

from pimc.diagnostics import InputError
from pimc.frontends.model import ImportedModel
from pimc.frontends.weight_file import read_weights, write_weights
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.aliases import aliases_of, with_aliases
from pimc.ir.context import read_source
from pimc.ir.locations import where
from pimc.ir.stages import stage_of
from pimc.ir.weights import FamilyName, WeightStore, split_views
from pimc.isa.metadata import dump_json, parse_model
from pimc.text import ModelInfo

SUFFIX: Final = ".mlir"
#: The file beside dumps: weights, tokenizer, and what generation needs.
MODEL_FILE: Final = "model.safetensors"
_INFO, _TOKENIZER = "pimc.model", "pimc.tokenizer"


def import_ir(path: Path, weights: Path | None = None, *, shapes_only: bool = False) -> ImportedModel:
    """The module in a file, and what goes with it.

    Args:
        path: the IR, of any stage.
        weights: a safetensors file with its weights.  By default that beside the IR: of the same stem, or
            ``model.safetensors``.
        shapes_only: whether the IR may lack its weights.

    Raises:
        InputError: the IR cannot be parsed or verified; a weight is missing or has another shape.
    """
    module, source = read_source(path)
    beside = next(
        (file for file in (path.with_suffix(".safetensors"), path.parent / MODEL_FILE) if file.is_file()), None
    )
    store, metadata = read_weights(beside) if beside is not None else (ModelWeights({}), {})
    if weights is not None:
        store, others = read_weights(weights)
        metadata = {**others, **metadata}
    try:
        stage = stage_of(module)
        if not shapes_only:
            check_weights(module, store, weights or beside)
    except InputError as error:
        raise source.explain(error) from None
    info = None
    if _INFO in metadata:
        info = ModelInfo.from_json(parse_model(metadata[_INFO], str(weights or beside)))
    return ImportedModel(
        module,
        store,
        metadata.get(_TOKENIZER),
        info.chat_template if info else None,
        list(info.eos_ids) if info else [],
        dict(info.special or {}) if info else {},
        info.name if info else _name(module, path),
        max_seq=info.max_seq if info else None,
        prefill_chunk=info.prefill_chunk if info else None,
        start_ids=info.start_ids if info else (),
        stage=stage,
        source=source,
    )


def _name(module: ModuleOp, path: Path) -> str:
    facts = module.attributes.get("pimc.model")
    name = facts.data.get("name") if isinstance(facts, DictionaryAttr) else None
    return name.data if isinstance(name, StringAttr) else path.stem


def write_model(folder: Path, model: ImportedModel, info: ModelInfo | None, *, weights: bool = True) -> None:
    """Write what goes with the dumps of a model: see the module.

    Args:
        folder: where the dumps are.
        model: the model, before any pass.
        info: what generation needs; None for a function of tensors.
        weights: whether to write the weights.
    """
    metadata = {_INFO: dump_json(info.to_json())} if info is not None else {}
    if model.tokenizer_json is not None:
        metadata[_TOKENIZER] = model.tokenizer_json
    names = _needed(model) if weights else []
    if names or metadata:
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder / MODEL_FILE, model.weights, names, metadata)


def _needed(model: ImportedModel) -> list[str]:
    """Names of the weights that a module uses; all where it names families of them, or its stage names none."""
    used = {split_views(op.weight_name.data)[0] for op in model.module.walk() if isinstance(op, nn.ParamOp)}
    known = list(model.weights.names())
    every = not used or any("*" in name for name in used) or aliases_of(model.module)
    return known if every else [name for name in known if name in used]


def check_weights(module: ModuleOp, store: WeightStore, file: Path | None) -> None:
    """Check that the weights a module names are there, in the shapes that it states.

    Raises:
        InputError: one is not; with the operation that names it.
    """
    named = with_aliases(module, store)
    known = list(named.names())
    for op in module.walk():
        if not isinstance(op, nn.ParamOp):
            continue
        base, views = split_views(op.weight_name.data)
        family = FamilyName(base)
        members = [name + "".join(views) for name in family.members(known).values()] if family.is_family else []
        shape = tuple(nn.tensor_of(op.result).get_shape())
        for name in members or [op.weight_name.data]:
            _check(op, name, shape, named, file)


def _check(op: nn.ParamOp, name: str, shape: tuple[int, ...], store: WeightStore, file: Path | None) -> None:
    if name not in store:
        raise InputError(
            f"there is no weight {name!r}" + (f" in {file}" if file else ""),
            hint="give the file with its weights: --weights FILE.safetensors"
            if file is None
            else "the names are those of nn.param; --weights FILE.safetensors names another file",
            where=where(op),
        )
    have = store.shape(name)
    if have != shape:
        raise InputError(f"weight {name!r} has the shape {have} in {file}, and {shape} in the IR", where=where(op))
