"""Pipelines: text <-> passes, and the manager that runs them.

A pipeline is ``name{option=value option=a,b flag},name,...``.  Strings that are no plain word are quoted.
How ``-p`` edits the default pipeline (``...,place,my-pass,...``) is in :mod:`pimc.driver.pipeline`.
"""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_type_hints

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import ArgSpec, ParameterListType, ParameterType
from xdsl.utils.arg_spec import _convert_arg_to_type as convert_option  # xDSL is pinned to one version
from xdsl.utils.arg_spec import parse_pipeline as parse_specs
from xdsl.utils.exceptions import ArgSpecParseError, DiagnosticException
from xdsl.utils.hints import type_repr

from pimc.diagnostics import InputError, InternalError, PimcError, UsageError
from pimc.ir.context import UNREADABLE, find_invalid, one_line
from pimc.ir.locations import check_locations, where
from pimc.ir.stages import Stage, op_name, state_stage, violations
from pimc.passes.base import Pass, PassContext, format_pass
from pimc.passes.observers import Observer
from pimc.passes.policy import Policy
from pimc.passes.registry import PassRegistry, describe
from pimc.timings import stage as timed

_SYNTAX = "write a pipeline as name,name{option=value option=a,b}"


def split_pipeline(text: str) -> list[str]:
    """The passes of a pipeline text, cut at commas outside braces and quotes; UsageError if those do not
    close.
    """
    items, depth, quoted, start = [], 0, False, 0
    for index, character in enumerate(text):
        if character == '"' and (index == 0 or text[index - 1] != "\\"):
            quoted = not quoted
        elif not quoted:
            depth += (character == "{") - (character == "}")
            if depth < 0:
                break
            if character == "," and depth == 0:
                items.append(text[start:index].strip())
                start = index + 1
    if depth or quoted:
        raise UsageError(f"braces or quotes do not match in the pipeline {text!r}", hint=_SYNTAX)
    items.append(text[start:].strip())
    return [] if items == [""] else items


def parse_pipeline(
    text: str | Iterable[str], registry: PassRegistry | None = None, policy: Policy | None = None
) -> tuple[ModulePass, ...]:
    """The passes of a pipeline, with the options of a policy where the text states none.

    Raises UsageError for bad syntax, an unknown pass, an unknown or ill-typed option.
    """
    registry = PassRegistry() if registry is None else registry
    items = split_pipeline(text) if isinstance(text, str) else text
    options: Mapping[str, Mapping[str, ParameterType]] = {} if policy is None else policy.options
    for name in options:
        registry.get(name)
    return tuple(parse_pass(item, registry, options) for item in items)


def parse_pass(
    text: str, registry: PassRegistry, defaults: Mapping[str, Mapping[str, ParameterType]] | None = None
) -> ModulePass:
    """One pass with its options; ``defaults`` of those that are not stated, by pass."""
    try:
        specs = list(parse_specs(text))
    except ArgSpecParseError as error:
        problem = str(error).strip().splitlines()[-1].strip(" ^")
        raise UsageError(f"{problem} in {text!r}", hint=_SYNTAX) from error
    if len(specs) != 1:
        raise UsageError(f"a pass is missing in the pipeline at {text!r}", hint=_SYNTAX)
    given = specs[0].normalize_parameter_names().parameters
    own = {name.replace("-", "_"): (value,) for name, value in (defaults or {}).get(specs[0].name, {}).items()}
    return build_pass(registry.get(specs[0].name), ArgSpec(specs[0].name, {**own, **given}))


def _normalised(values: ParameterListType, hint: object) -> ParameterListType:
    """A flag without value is true; an integer is good for a float."""
    if hint is bool and not values:
        return (True,)
    if hint in (float, float | None):
        return tuple(float(value) if type(value) is int else value for value in values)
    return values


def build_pass(class_: type[ModulePass], spec: ArgSpec) -> ModulePass:
    """An instance of a pass with the options of ``spec``; UsageError for an unknown or ill-typed option."""
    hints = get_type_hints(class_)
    names = [option.name for option in dataclasses.fields(class_) if option.init and option.name != "name"]
    known = f"options of {class_.name}: {', '.join(describe(class_).options) or 'none'}"
    parameters: dict[str, ParameterListType] = {}
    for key, values in spec.normalize_parameter_names().parameters.items():
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {close[0].replace('_', '-')}?" if close else known
            raise UsageError(f"pass {class_.name!r} has no option {key.replace('_', '-')!r}", hint=hint)
        parameters[key] = _normalised(values, hints[key])
        try:
            convert_option(parameters[key], hints[key])
        except (ValueError, TypeError) as error:
            given = ",".join(map(str, values)) or "nothing"
            message = f"option {key.replace('_', '-')!r} of pass {class_.name!r} must be {type_repr(hints[key])}"
            raise UsageError(f"{message}, not {given}") from error
    try:
        return class_.from_spec(ArgSpec(spec.name, parameters))
    except ValueError as error:
        raise UsageError(f"pass {class_.name!r}: {error}", hint=known) from error


def format_pipeline(passes: Sequence[ModulePass]) -> str:
    """The text that parses to equal passes."""
    return ",".join(format_pass(pass_) for pass_ in passes)


@dataclass(frozen=True)
class PassManager:
    """Runs passes in order.

    ``verify_each``: after each pass, check operations, locations, and the rule of the stage.  The stage is
    that of the last pass that stated one.
    """

    passes: tuple[ModulePass, ...]
    verify_each: bool = True

    def run(
        self, module: ModuleOp, context: PassContext | None = None, observers: Sequence[Observer] = ()
    ) -> PassContext:
        """Run all passes on ``module`` in place; returns the context with what the passes recorded.

        Raises InputError where the module is not what a pass requires, InternalError (naming the pass) where
        a pass leaves an invalid module.
        """
        context = PassContext() if context is None else context
        if context.source is None:
            return self._run(module, context, observers)
        context.source.locate(module)
        try:
            return self._run(module, context, observers)
        except PimcError as error:
            raise context.source.explain(error) from error.__cause__

    def _run(self, module: ModuleOp, context: PassContext, observers: Sequence[Observer]) -> PassContext:
        stage: Stage | None = None
        for index, pass_ in enumerate(self.passes):
            context.current_pass = pass_.name
            _check_required(pass_, module, context)
            for observer in observers:
                observer.before(index, pass_, module)
            start = time.perf_counter()
            with timed(f"pass {pass_.name}"):
                _run_pass(pass_, module, context)
            seconds = time.perf_counter() - start
            produced: Stage | None = getattr(type(pass_), "produces", None)
            if produced is not None:
                stage = produced
                state_stage(module, stage)
            for observer in observers:
                observer.after(index, pass_, module, seconds)
            if self.verify_each:
                _check_result(pass_, module, stage, context)
        context.current_pass = ""
        return context


def _run_pass(pass_: ModulePass, module: ModuleOp, context: PassContext) -> None:
    try:
        if isinstance(pass_, Pass):
            pass_.run(module, context)
        else:
            _with_target(pass_, context).apply(context.ir, module)
    except PimcError:
        raise
    except DiagnosticException as error:
        raise _fault(pass_, context, f"pass {pass_.name!r} failed: {one_line(error)}", None) from error
    except (*UNREADABLE, RecursionError) as error:
        if not _blames_the_source(pass_, context):
            raise
        # IR of a late stage can break what its passes rely on in ways that no verifier tells.
        message = f"pass {pass_.name!r} cannot process the module: {type(error).__name__}: {one_line(error)}"
        raise _fault(pass_, context, message, None) from error


def _blames_the_source(pass_: ModulePass, context: PassContext) -> bool:
    """Whether what goes wrong in a pass is put down to the module: one that a user wrote, in a pass of pimc."""
    return context.source is not None and type(pass_).__module__.startswith("pimc.")


def _fault(pass_: ModulePass, context: PassContext, message: str, where: str | None) -> PimcError:
    """The error for what a pass made of a module."""
    if context.source is None or not _blames_the_source(pass_, context):
        return InternalError(message, where=where)
    hint = "the IR verifies, but breaks what the pass relies on; --debug shows where in the pass"
    return InputError(message, where=where or context.source.name, hint=hint)


def _with_target(pass_: ModulePass, context: PassContext) -> ModulePass:
    """A plain xDSL pass with options ``target`` and ``set`` gets those of the context where it has its
    defaults.
    """
    given = {"target": context.target_name, "set": context.overrides or None}
    changes = {
        option.name: given[option.name]
        for option in dataclasses.fields(pass_)
        if given.get(option.name) is not None and getattr(pass_, option.name) == option.default
    }
    return dataclasses.replace(pass_, **changes) if changes else pass_


def _check_required(pass_: ModulePass, module: ModuleOp, context: PassContext) -> None:
    required: Stage | None = getattr(type(pass_), "requires", None)
    if required is None:
        return
    first = next(violations(module, required), None)
    if first is not None:
        article = "an" if required.title[0] in "aeio" else "a"
        error = InputError(
            f"pass {pass_.name!r} needs {article} {required.title} module: {op_name(first.op)}: {first.reason}",
            where=where(first.op),
            hint=f"run the passes that come before {pass_.name!r} in the default pipeline",
        )
        raise error if context.source is None else context.source.point(error, first.op)


@timed("verify after passes")
def _check_result(pass_: ModulePass, module: ModuleOp, stage: Stage | None, context: PassContext) -> None:
    invalid = find_invalid(module)
    if invalid is not None:
        op, reason = invalid
        message = f"after pass {pass_.name!r} {op_name(op)} does not verify: {reason}"
        raise _fault(pass_, context, message, where(op))
    try:
        check_locations(module)
    except InternalError as error:
        raise InternalError(f"after pass {pass_.name!r} {error.message}", hint=error.hint, where=error.where) from error
    first = next(violations(module, stage), None) if stage is not None else None
    if first is not None:
        message = f"after pass {pass_.name!r} {op_name(first.op)}: {first.reason}"
        raise _fault(pass_, context, message, where(first.op))
