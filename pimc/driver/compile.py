"""Model in, program out: import, passes, link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from pimc.backends.link import link_program
from pimc.diagnostics import InputError, UsageError
from pimc.driver import pipeline
from pimc.driver.target import OVERRIDES_KEY
from pimc.frontends import ImportedModel, import_model
from pimc.ir.signature import signature
from pimc.isa.program import Json, LoadedProgram
from pimc.isa.validate import validate_program
from pimc.limits import NAME_CHARACTERS
from pimc.passes.base import PassContext
from pimc.passes.observers import Observer
from pimc.passes.pipeline import PassManager, parse_pipeline
from pimc.passes.registry import PassRegistry
from pimc.ports import PORTS_KEY
from pimc.requirements import import_hint
from pimc.targets import Target, load_target
from pimc.text import ModelInfo
from pimc.timings import stage

DEFAULT_MAX_SEQ = 1024
DEFAULT_PREFILL_CHUNK = 16
_MODEL_LIBRARIES = ("torch", "transformers", "gguf", "onnx")


@dataclass(frozen=True)
class Options:
    """What a compilation may be told; see ``pimc.compile``."""

    target: str | Path = "hpim"
    overrides: tuple[str, ...] = ()
    max_seq: int | None = None
    prefill_chunk: int | None = None
    pipeline: str | None = None
    plugins: tuple[str, ...] = ()
    verify_each: bool = True
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    bind: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True)
class Compiled:
    """A program and the target it is for."""

    program: LoadedProgram
    target: Target


@dataclass(frozen=True)
class Plan:
    """A compilation whose options have been checked: the target, and the passes to run."""

    options: Options
    target: Target
    passes: tuple[ModulePass, ...]


def plan(options: Options, *, until_placed: bool = False) -> Plan:
    """Check the options, before the long work of importing a model starts.

    Args:
        until_placed: only the passes that decide where operations run: those before ``partition``.

    Raises:
        UsageError: an unknown pass or option, or, ``until_placed``, a pipeline without ``place``.
        TargetError: an unknown target or key.
    """
    target = load_target(options.target, options.overrides)
    passes = parse_pipeline(pipeline.expand(options.pipeline), PassRegistry(options.plugins))
    return Plan(options, target, _until_placed(passes) if until_placed else passes)


def _until_placed(passes: tuple[ModulePass, ...]) -> tuple[ModulePass, ...]:
    """The passes before ``partition``, or, without one, up to ``place``: passes of users may follow it."""
    names = [step.name for step in passes]
    if "place" not in names:
        raise UsageError("the pipeline has no pass 'place'", hint=f"it has: {', '.join(names)}")
    placed = names.index("place") + 1
    later = names[placed:]
    return passes[: placed + later.index("partition")] if "partition" in later else passes[:placed]


def run_plan(source: object, planned: Plan, observers: Sequence[Observer] = ()) -> tuple[ImportedModel, PassContext]:
    """Import ``source`` and run the planned passes on its module (in place)."""
    model = load_source(source, planned.options)
    return model, run_passes(model, planned, observers)


@stage("read the model")
def load_source(
    source: object,
    options: Options,
    example_inputs: Sequence[object] | Mapping[str, object] | None = None,
) -> ImportedModel:
    """Import ``source``; InputError where the library that reads it is not installed."""
    try:
        return import_model(
            source,
            max_seq=options.max_seq or DEFAULT_MAX_SEQ,
            prefill_chunk=options.prefill_chunk or DEFAULT_PREFILL_CHUNK,
            example_inputs=example_inputs,
            shapes=options.shapes,
            bind=options.bind,
        )
    except ModuleNotFoundError as error:
        if error.name not in _MODEL_LIBRARIES:
            raise
        raise InputError(
            f"reading models needs {error.name}, which is not installed",
            hint=import_hint(),
        ) from error


@stage("between passes")
def run_passes(model: ImportedModel, planned: Plan, observers: Sequence[Observer] = ()) -> PassContext:
    """Run the planned passes on the module of ``model`` (in place)."""
    context = PassContext(
        machine=planned.target,
        weights=model.weights,
        target_name=str(planned.options.target),
        overrides=planned.options.overrides,
    )
    manager = PassManager(planned.passes, verify_each=planned.options.verify_each)
    return manager.run(model.module, context, observers)


def compile_model(
    source: object,
    example_inputs: Sequence[object] | Mapping[str, object] | None = None,
    *,
    options: Options | None = None,
    planned: Plan | None = None,
    observers: Sequence[Observer] = (),
) -> Compiled:
    """Compile a model: whatever :func:`pimc.frontends.import_model` takes.

    Args:
        source: the model.
        example_inputs: of a PyTorch module, its arguments: positional ones, or a dictionary of named ones.
        options: see :class:`Options`; or ``planned``, if they have been checked already.
        observers: see the IR after the import and after each pass.

    Raises:
        PimcError: of the import, a pass, or the link; see their documentation.
    """
    planned = planned or plan(options or Options())
    return compile_imported(load_source(source, planned.options, example_inputs), planned=planned, observers=observers)


def compile_imported(
    model: ImportedModel,
    *,
    options: Options | None = None,
    planned: Plan | None = None,
    observers: Sequence[Observer] = (),
) -> Compiled:
    """Compile an imported model; its module is rewritten in place.

    Args:
        model: what a frontend made: a language model, or a module whose entries are functions of tensors.
        options: see :class:`Options`; or ``planned``, if they have been checked already.
        observers: see the IR after the import and after each pass.

    Raises:
        PimcError: of a pass, or the link; see their documentation.
    """
    planned = planned or plan(options or Options())
    metadata = _metadata(model, planned.options)
    run_passes(model, planned, observers)
    linked = link_program(model.module, model.weights, planned.target)
    program = replace(linked, model=metadata, tokenizer=model.tokenizer_json)
    return Compiled(validate_program(program), planned.target)


def _metadata(model: ImportedModel, options: Options) -> dict[str, Json]:
    """What travels in the binary beside the code: what text generation needs, or the names and types of the model's
    inputs and outputs; and how the target was changed.
    """
    functions = {op.sym_name.data: op for op in model.module.ops if isinstance(op, FuncOp)}
    name = model.name[:NAME_CHARACTERS]
    metadata: dict[str, Json] = {"name": name, OVERRIDES_KEY: list(options.overrides)}
    if "decode" in functions:
        sizes = model.module.attributes.get("pimc.model")
        slots = sizes.data["max_seq"] if isinstance(sizes, DictionaryAttr) else None
        wanted = options.max_seq or DEFAULT_MAX_SEQ
        info = ModelInfo(
            name=name,
            max_seq=min(wanted, slots.value.data) if isinstance(slots, IntegerAttr) else wanted,
            prefill_chunk=options.prefill_chunk or DEFAULT_PREFILL_CHUNK,
            eos_ids=tuple(model.eos_ids),
            chat_template=model.chat_template,
            special=model.special,
        )
        return metadata | info.to_json()
    return metadata | {PORTS_KEY: {name: signature(function).to_json() for name, function in functions.items()}}
