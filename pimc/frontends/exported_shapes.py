"""Exported programs with sizes that are not fixed -> the same program for inputs of given shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pimc.diagnostics import InputError, UsageError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def with_shapes(program: ExportedProgram, shapes: Mapping[str, Sequence[int]]) -> ExportedProgram:
    """``program`` with all sizes fixed: it is exported again for inputs of ``shapes``, by name.

    Raises:
        UsageError: a shape of an unknown input, or one that the input cannot have.
        InputError: an input with open sizes has no shape, or the program does not take it.
    """
    inputs = _tensor_inputs(program)
    if unknown := sorted(set(shapes) - set(inputs)):
        raise UsageError(f"the program has no input '{unknown[0]}'", hint=f"its inputs: {', '.join(inputs) or 'none'}")
    for name, shape in shapes.items():
        _check(name, tuple(shape), inputs[name])
    still_open = [name for name, value in inputs.items() if _is_open(value) and name not in shapes]
    if still_open:
        listed = ", ".join(f"{name} [{', '.join(map(str, inputs[name].shape))}]" for name in still_open)
        example = ", ".join(f"{name!r}: {_example(inputs[name])}" for name in still_open)
        raise InputError(f"the sizes of {listed} are not fixed", hint=f"give them: shapes={{{example}}}")
    if not any(_is_open(value) for value in inputs.values()):
        return program
    return _exported_again(program, inputs, shapes)


def _tensor_inputs(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """The inputs that are tensors, by name, as the export saw them."""
    users = set(program.graph_signature.user_inputs)
    nodes = (node for node in program.graph.find_nodes(op="placeholder") if node.name in users)
    return {node.name: node.meta["val"] for node in nodes if hasattr(node.meta.get("val"), "shape")}


def _is_open(value: torch.Tensor) -> bool:
    return not all(isinstance(size, int) for size in value.shape)


def _example(value: torch.Tensor) -> tuple[int, ...]:
    """A shape that the input may have, for the hint."""
    return tuple(size if isinstance(size, int) else int(size.node.hint or 2) for size in value.shape)


def _check(name: str, shape: tuple[int, ...], value: torch.Tensor) -> None:
    fits = len(shape) == len(value.shape) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        declared = ", ".join(map(str, value.shape))
        raise UsageError(f"input '{name}' [{declared}] cannot have the shape {list(shape)}")


def _exported_again(
    program: ExportedProgram, inputs: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]]
) -> ExportedProgram:
    import torch

    from pimc.frontends.torch_export import quiet_export
    from pimc.frontends.torch_program import first_line

    leaves = []
    for node in program.graph.find_nodes(op="placeholder"):
        if node.name in program.graph_signature.user_inputs:
            value = inputs.get(node.name)
            size = shapes.get(node.name, () if value is None else value.shape)
            leaves.append(node.meta["val"] if value is None else torch.zeros(tuple(size), dtype=value.dtype))
    try:
        arguments, named = torch.utils._pytree.tree_unflatten(leaves, program.call_spec.in_spec)
        with torch.no_grad(), quiet_export():
            return torch.export.export(program.module(), tuple(arguments), dict(named), strict=False)
    except Exception as error:  # the program's own conditions on its sizes are checked in there
        raise InputError(
            f"the program does not take inputs of these shapes: {first_line(error)}",
            hint="it was exported with bounds and relations of its sizes; keep to them",
        ) from error
