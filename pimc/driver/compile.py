"""Model in, program out: import, passes, link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, StringAttr
from xdsl.passes import ModulePass

from pimc.diagnostics import InputError, UsageError
from pimc.driver import pipeline
from pimc.driver.chunks import AUTO, MOST, Chunk, largest_that_fits
from pimc.driver.target import OVERRIDES_KEY
from pimc.frontends import ImportedModel, import_model, is_ir
from pimc.frontends.dump import write_model
from pimc.ir.signature import is_language_model, state_signatures, stated_signatures
from pimc.ir.stages import Stage
from pimc.isa.program import Json, LoadedProgram
from pimc.isa.validate import validate_program
from pimc.limits import NAME_CHARACTERS
from pimc.passes.base import PassContext
from pimc.passes.observers import DumpIr, Observer
from pimc.passes.pipeline import PassManager, parse_pipeline
from pimc.passes.place import POLICY
from pimc.passes.policy import Policy
from pimc.passes.registry import PassRegistry
from pimc.passes.spill import SpillPass
from pimc.policies import DEFAULT as DEFAULT_POLICY
from pimc.ports import PORTS_KEY, signature_of
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
    prefill_chunk: Chunk | None = None
    policy: str | None = None
    pipeline: str | None = None
    plugins: tuple[str, ...] = ()
    verify_each: bool = True
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    bind: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    weights: str | Path | None = None
    shapes_only: bool = False
    """Make a binary without weights, for timing: of a model folder, config.json is enough."""
    dump_ir: Path | None = None
    """A folder for the IR before and after each pass, and ``model.safetensors`` beside it."""
    dump_weights: bool = True


@dataclass(frozen=True)
class Compiled:
    """A program and the target it is for."""

    program: LoadedProgram
    target: Target

    def in_memory(self) -> LoadedProgram:
        """The program with its images made, which raises what is wrong in the weights; to run, not to write."""
        return replace(self.program, images=dict(self.program.images))


@dataclass(frozen=True)
class Plan:
    """A compilation whose options have been checked: the target, and the passes to run."""

    options: Options
    target: Target
    passes: tuple[ModulePass, ...]
    policy: Policy
    until_placed: bool = False

    def for_module(self, module: ModuleOp, stage: Stage) -> Plan:
        """The plan for a module that has seen the passes up to a stage: the default ones among them are left out, and
        one that is placed goes on with the policy that placed it.

        Raises:
            UsageError: another policy is asked for, or there is none of that name.
        """
        if stage is Stage.IMPORTED:
            return self
        registry, policy = PassRegistry(self.options.plugins), self.policy
        if stage >= Stage.PLACED:
            stated = module.attributes.get(POLICY)
            name = stated.data if isinstance(stated, StringAttr) else DEFAULT_POLICY
            if self.options.policy not in (None, name):
                raise UsageError(
                    f"the IR is placed already, by the policy {name!r}",
                    hint="leave out --policy, or give it to the compilation that made the IR",
                )
            policy = registry.policy(name)
        items = pipeline.expand(self.options.pipeline, pipeline.after(stage, registry))
        passes = parse_pipeline(items, registry, policy)
        return replace(self, passes=_until_placed(passes) if self.until_placed else passes, policy=policy)


def plan(options: Options, *, until_placed: bool = False) -> Plan:
    """Check the options, before the long work of importing a model starts.

    Args:
        until_placed: only the passes that decide where operations run: those before ``partition``.

    Raises:
        UsageError: an unknown policy, pass or option, or, ``until_placed``, a pipeline without ``place``.
        TargetError: an unknown target or key.
    """
    target = load_target(options.target, options.overrides)
    registry = PassRegistry(options.plugins)
    pipeline.check_names(options.pipeline, registry)
    policy = registry.policy() if options.policy is None else registry.policy(options.policy)
    passes = parse_pipeline(pipeline.expand(options.pipeline), registry, policy)
    return Plan(options, target, _until_placed(passes) if until_placed else passes, policy, until_placed)


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
    if is_ir(source) and (options.max_seq is not None or options.prefill_chunk is not None):
        raise UsageError(
            "IR has its sizes already: it takes neither --max-seq nor --prefill-chunk",
            hint="compile the model again with them, and dump that",
        )
    try:
        return import_model(
            source,
            max_seq=options.max_seq or DEFAULT_MAX_SEQ,
            prefill_chunk=_chunk(options) or DEFAULT_PREFILL_CHUNK,
            example_inputs=example_inputs,
            shapes=options.shapes,
            bind=options.bind,
            weights=options.weights,
            shapes_only=options.shapes_only,
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
    """Run the planned passes on the module of ``model`` (in place); those that a dump has seen are left out."""
    options, planned = planned.options, planned.for_module(model.module, model.stage)
    state_signatures(model.module)
    if options.dump_ir is not None:
        write_model(options.dump_ir, model, _model_info(model, options), weights=options.dump_weights)
        observers = [*observers, DumpIr(options.dump_ir)]
    context = PassContext(
        machine=planned.target,
        weights=model.weights,
        shapes_only=options.shapes_only,
        target_name=str(options.target),
        overrides=options.overrides,
        source=model.source,
        policy=planned.policy,
    )
    manager = PassManager(planned.passes, verify_each=options.verify_each)
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
    if planned.options.prefill_chunk == AUTO:
        return _compile_largest_chunk(source, example_inputs, planned, observers)
    return compile_imported(load_source(source, planned.options, example_inputs), planned=planned, observers=observers)


def _compile_largest_chunk(
    source: object,
    example_inputs: Sequence[object] | Mapping[str, object] | None,
    planned: Plan,
    observers: Sequence[Observer],
) -> Compiled:
    """Compile with the largest prefill chunk that fits without loops over rows, which would read weights several
    times a chunk; only the last compilation is observed and dumped.
    """

    def compile_chunk(chunk: int, *, dump_ir: Path | None = None, observers: Sequence[Observer] = ()) -> Compiled:
        options = replace(planned.options, prefill_chunk=chunk, dump_ir=dump_ir)
        model = load_source(source, options, example_inputs)
        passes = tuple(replace(each, loops=False) if isinstance(each, SpillPass) else each for each in planned.passes)
        return compile_imported(model, planned=replace(planned, options=options, passes=passes), observers=observers)

    most = min(MOST, planned.options.max_seq or DEFAULT_MAX_SEQ)
    chunk, compiled = largest_that_fits(compile_chunk, most)
    if planned.options.dump_ir is None and not observers:
        return compiled
    return compile_chunk(chunk, dump_ir=planned.options.dump_ir, observers=observers)


def _chunk(options: Options) -> int | None:
    """The prefill chunk of a compilation whose options give one."""
    return options.prefill_chunk if isinstance(options.prefill_chunk, int) else None


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
    info = _model_info(model, planned.options)
    linked = run_passes(model, planned, observers).program
    if linked is None:
        raise InputError("the pipeline has made no program", hint="it has to end with emit,link")
    metadata: dict[str, Json] = {"name": model.name[:NAME_CHARACTERS], OVERRIDES_KEY: list(planned.options.overrides)}
    described = stated_signatures(model.module)
    if info is not None:
        metadata |= info.to_json()
    elif described is not None:
        metadata[PORTS_KEY] = described
    program = validate_program(replace(linked, model=metadata, tokenizer=model.tokenizer_json))
    for name, entry in program.entries.items():
        signature_of(program.model, name, entry)  # what IR states may be anything
    return Compiled(program, planned.target)


def _model_info(model: ImportedModel, options: Options) -> ModelInfo | None:
    """What text generation needs of a language model, beside its code; None for a function of tensors."""
    if not is_language_model(model.module):
        return None
    sizes = model.module.attributes.get("pimc.model")
    slots = sizes.data.get("max_seq") if isinstance(sizes, DictionaryAttr) else None
    wanted = options.max_seq or model.max_seq or DEFAULT_MAX_SEQ
    return ModelInfo(
        name=model.name[:NAME_CHARACTERS],
        max_seq=min(wanted, slots.value.data) if isinstance(slots, IntegerAttr) else wanted,
        prefill_chunk=_chunk(options) or model.prefill_chunk or DEFAULT_PREFILL_CHUNK,
        eos_ids=tuple(model.eos_ids),
        chat_template=model.chat_template,
        special=model.special,
        start_ids=model.start_ids,
    )
