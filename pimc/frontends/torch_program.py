"""PyTorch programs of any kind -> a module of `nn` primitives with the entry point ``main``.

A module is exported with ``torch.export``; what comes out (or out of a ``.pt2`` file) is made functional if it writes
to tensors, and operators without a converter are decomposed by PyTorch's own rules as far as those go.
"""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr

from pimc.diagnostics import InputError
from pimc.frontends.aten import CONVERTERS
from pimc.frontends.decompositions import rules as own_rules
from pimc.frontends.fx_fold import find_foldable
from pimc.frontends.fx_state import state_names
from pimc.frontends.fx_values import mutates, target_of
from pimc.frontends.graph import GraphImporter
from pimc.frontends.model import ImportedModel
from pimc.frontends.torch_export import quiet_export
from pimc.frontends.weights import ModelWeights, check_all_fp16
from pimc.ir import nn
from pimc.timings import stage

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

ENTRY: Final = "main"
_ROUNDS: Final = 8
"""How often what a decomposition left may be decomposed again."""


def import_module(
    module: torch.nn.Module,
    example_inputs: Sequence[object] = (),
    example_kwargs: Mapping[str, object] | None = None,
) -> ImportedModel:
    """Export a module for inputs of the shapes and types of the examples, and import it.

    Raises:
        InputError: the module cannot be exported, or a weight does not fit fp16.
        UnsupportedModelError: operators without a conversion, all of them.
    """
    return import_program(export_module(module, example_inputs, example_kwargs), type(module).__name__)


@stage("export with torch.export")
def export_module(
    module: torch.nn.Module,
    example_inputs: Sequence[object] = (),
    example_kwargs: Mapping[str, object] | None = None,
) -> ExportedProgram:
    """``torch.export`` of a module without gradients; InputError with the place in the user's code where it fails."""
    import torch

    inputs = tuple(_as_tensors(item) for item in example_inputs)
    kwargs = {name: _as_tensors(item) for name, item in (example_kwargs or {}).items()}
    with torch.no_grad(), quiet_export(), _plain_attention():
        try:
            return torch.export.export(module, inputs, kwargs, strict=False)
        except Exception as error:  # the user's code runs in there, and may raise anything
            raise InputError(
                f"torch.export cannot export the module: {first_line(error)}",
                hint="control flow must not depend on the values of tensors",
                where=_users_line(error),
            ) from error


def _as_tensors(value: object) -> object:
    """Numpy arrays in example inputs as tensors."""
    import numpy as np
    import torch

    return torch.utils._pytree.tree_map_only(np.ndarray, torch.from_numpy, value)


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused kernels of ``nn.TransformerEncoderLayer``: its modules one by one."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _users_line(error: BaseException) -> str | None:
    """The innermost line of the exception's path that is neither PyTorch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/torch/" not in frame.filename and "/pimc/frontends/" not in frame.filename]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def import_program(program: ExportedProgram, name: str) -> ImportedModel:
    """Import an exported program as the entry point ``main``."""
    prepared = prepare(program)
    weights = ModelWeights({})
    module = ModuleOp([], attributes={"pimc.model": DictionaryAttr({"name": StringAttr(name)})})
    names, folder = state_names(prepared), find_foldable(prepared)
    importer = GraphImporter(prepared, ENTRY, names, weights, CONVERTERS, folder=folder)
    module.body.block.add_op(importer.run())
    check_all_fp16(weights, sorted({op.weight_name.data for op in module.walk() if isinstance(op, nn.ParamOp)}))
    return ImportedModel(module, weights, None, None, [], {}, name)


@stage("decompose")
def prepare(program: ExportedProgram) -> ExportedProgram:
    """The program without writes to tensors, and without operators that only PyTorch's decompositions make
    convertible.
    """
    import torch

    before: set[object] = set()
    for _ in range(_ROUNDS):
        calls = [node for node in program.graph.nodes if node.op == "call_function"]
        missing = {node.target for node in calls if target_of(node) not in CONVERTERS or mutates(node)}
        # What one rule leaves may be what another had a rule for in the round before.
        if not missing or missing == before:
            break
        before = missing
        # With an empty table PyTorch still replaces writes, and composite views such as ``x.mT``.
        rules = {target: _decomposition(target) for target in missing}
        table = {target: rule for target, rule in rules.items() if rule is not None}
        with torch.no_grad(), quiet_export(), _plain_attention():
            try:
                program = program.run_decompositions(table)
            except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
                raise InputError(f"torch.export cannot decompose the program: {first_line(error)}") from error
    return program


@cache
def _composite_rules() -> Mapping[object, Callable[..., object]]:
    """PyTorch's rules for operators that are composed of others, and those of its core operators."""
    from torch.export import default_decompositions

    table: Mapping[object, Callable[..., object]] = default_decompositions()
    return table


def _decomposition(target: object) -> Callable[..., object] | None:
    """The rule for an operator, if there is one: ours, PyTorch's, or what a composite operator is composed of."""
    import torch
    from torch._decomp import decomposition_table

    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return None
    # What a composite operator is composed of comes from its own kernel; PyTorch's functions of the same name in Python
    # may end in primitives, or take other arguments.
    if str(target) in own_rules():
        return own_rules()[str(target)]
    for rules in (_composite_rules(), decomposition_table):
        if target in rules and not _is_misread(rules[target]):
            return rules[target]
    return None


def _is_misread(rule: Callable[..., object]) -> bool:
    """Whether a rule takes the name of a reduction, where the operator that it is registered for has its number.

    PyTorch registers a few functions of Python so; such a rule takes every number for another reduction.
    """
    parameter = inspect.signature(rule).parameters.get("reduction")
    return parameter is not None and parameter.annotation in (str, "str")
