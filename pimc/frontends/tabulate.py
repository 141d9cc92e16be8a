"""Functions of the position alone become tables: the rotary embedding's cosines and sines.
 The exported graph computes ``cos(positions * frequencies)`` in every call.  No PIM unit has a cosine, and
the values depend on nothing but the position, so the import evaluates that part of the graph for every
position of the cache and stores the rows as a weight, ``rope_table`` of shape ``[S, 2D]`` (cosines, then
sines).  Any scaling of frequencies that a model applies is part of the evaluated graph and therefore right by
construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pimc.diagnostics import InputError
from pimc.frontends.fx_values import target_of

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_SEEDS: Final = {"aten.cos.default": 0, "aten.sin.default": 1}
_FORWARD: Final = frozenset({
    "aten.mul.Tensor", "aten.mul.Scalar",
    "aten.to.dtype", "aten.to.device", "aten.to.dtype_layout", "aten._to_copy.default",
    "aten.contiguous.default", "aten.detach.default", "aten.alias.default",
})  # fmt: skip
_NO_RESULT: Final = "aten._assert_tensor_metadata.default"


@dataclass(frozen=True)
class Column:
    """Where a tabulated node is found: columns ``start`` to ``stop`` of weight ``table``, which has
    ``width``.
    """

    table: str
    width: int
    start: int
    stop: int


def position_only(program: ExportedProgram, position: torch.fx.Node) -> set[torch.fx.Node]:
    """Nodes that depend on ``position`` and on nothing else but buffers and constants."""
    buffers = set(program.graph_signature.inputs_to_buffers)
    fixed: set[torch.fx.Node] = set()
    found: set[torch.fx.Node] = {position}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in buffers and "_cache_" not in node.name:
            fixed.add(node)
        if node.op != "call_function" or target_of(node).endswith("_.default"):
            continue
        inputs = set(node.all_input_nodes)
        if inputs <= fixed:
            fixed.add(node)
        elif inputs <= fixed | found:
            found.add(node)
    return found


def find_tabulated(program: ExportedProgram, position: torch.fx.Node) -> list[torch.fx.Node]:
    """Results of cosines and sines of the position, cosine first within a pair, after scaling and
    conversion.
    """
    of_position = position_only(program, position)
    found: list[tuple[int, torch.fx.Node]] = []
    for node in program.graph.nodes:
        kind = _SEEDS.get(target_of(node)) if node.op == "call_function" else None
        if kind is None or node not in of_position:
            continue
        users = _value_users(node)
        while len(users) == 1 and target_of(users[0]) in _FORWARD and users[0] in of_position:
            node = users[0]
            users = _value_users(node)
        found.append((kind, node))
    for index in range(0, len(found) - 1, 2):
        found[index : index + 2] = sorted(found[index : index + 2], key=lambda pair: pair[0])
    return [node for _, node in found]


def _value_users(node: torch.fx.Node) -> list[torch.fx.Node]:
    return [user for user in node.users if target_of(user) != _NO_RESULT]


def assign_columns(nodes: list[torch.fx.Node]) -> dict[torch.fx.Node, Column]:
    """Pairs of equal width share a table ``rope_table`` (``rope_table_1`` and so on for further pairs)."""
    columns: dict[torch.fx.Node, Column] = {}
    for index in range(0, len(nodes), 2):
        group = nodes[index : index + 2]
        name = "rope_table" if index == 0 else f"rope_table_{index // 2}"
        widths = [int(node.meta["val"].shape[-1]) for node in group]
        start = 0
        for node, width in zip(group, widths, strict=True):
            columns[node] = Column(name, sum(widths), start, start + width)
            start += width
    return columns


def evaluate_tables(
    program: ExportedProgram,
    position: torch.fx.Node,
    columns: dict[torch.fx.Node, Column],
    slots: int,
    chunk: int,
) -> dict[str, npt.NDArray[np.float32]]:
    """The tables ``[slots, width]``; InputError if a tabulated node is not one row a position."""
    import torch

    order = _needed(program, set(columns))
    state: dict[str, torch.Tensor] = {**program.state_dict, **program.constants}
    buffers = program.graph_signature.inputs_to_buffers
    fixed = {node: state[buffers[node.name]] for node in order if node.op == "placeholder" and node is not position}

    def rows(start: int) -> dict[torch.fx.Node, npt.NDArray[np.float32]]:
        values: dict[torch.fx.Node, torch.Tensor] = {
            **fixed,
            position: torch.tensor([start], dtype=torch.int32),
        }
        for node in order:
            if node not in values:
                arguments = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
                values[node] = node.target(*arguments[0], **arguments[1])
        return {node: values[node].float().numpy().reshape(-1, values[node].shape[-1]) for node in columns}

    tables = {column.table: np.zeros((slots, column.width), dtype=np.float32) for column in columns.values()}
    with torch.no_grad():
        for start in range(0, slots, chunk):
            for node, value in rows(start).items():
                _check_rows(node, value.shape[0], chunk)
                column = columns[node]
                tables[column.table][start : start + chunk, column.start : column.stop] = value
        for node, value in rows(1).items():
            column = columns[node]
            known = tables[column.table][1 : 1 + chunk, column.start : column.stop]
            if not np.allclose(value[: known.shape[0]], known, atol=1e-6):
                raise InputError(f"{node.name}: a cosine of more than the token's own position is not supported")
    return tables


def _check_rows(node: torch.fx.Node, count: int, chunk: int) -> None:
    if count != chunk:
        raise InputError(f"{node.name}: {count} rows of cosines for {chunk} positions are not supported")


def _needed(program: ExportedProgram, roots: set[torch.fx.Node]) -> list[torch.fx.Node]:
    """``roots`` and all they depend on, in program order."""
    needed = set(roots)
    for node in reversed(list(program.graph.nodes)):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in program.graph.nodes if node in needed]
