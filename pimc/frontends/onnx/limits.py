"""What a model may ask for: sizes that are declared or computed are bounded before anything is allocated.

A file of some kilobytes can describe tensors of terabytes, or functions that call functions until their bodies fill
any memory.  Nothing here is a limit of the compiler's; the bounds are far above models that fit a machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import onnx
from onnx import TensorProto

from pimc.diagnostics import InputError
from pimc.frontends.unsupported import UnsupportedError

MAX_FILE: Final = 2 << 30
"""Bytes of the largest protobuf message; larger models keep their tensors in files beside it."""
MAX_NODES: Final = 1 << 18
"""Nodes of a graph with its functions in place and its loops unrolled."""
MAX_STEPS: Final = 4096
"""Steps of the longest loop or recurrence that is unrolled."""
MAX_CALLS: Final = 100
"""Functions that call each other."""
MAX_ELEMENTS: Final = 1 << 33
"""Elements of a tensor."""
MAX_RANK: Final = 64
"""Dimensions of a tensor."""
MAX_COMPUTED: Final = 1 << 27
"""Elements of a tensor computed at import from nothing as large."""
_KEPT: Final = 8
"""Results of the size of all the model's tensors that import may compute: weights are dequantised step by step."""


@dataclass
class Budget:
    """What the import of one model has used, inside functions, branches and loops too."""

    stored: int = 0
    """Elements of the model's own tensors."""
    nodes: int = 0
    """Nodes converted."""
    kept: int = 0
    """Elements computed."""

    def count_node(self) -> None:
        """One more node; InputError when there are too many."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise InputError(f"with its loops unrolled the graph has more than {MAX_NODES} nodes")

    def check_steps(self, before: int, steps: int) -> None:
        """UnsupportedError for a loop whose first step, counted from ``before``, says that all are too many nodes."""
        each = self.nodes - before
        if each * steps > MAX_NODES:
            raise UnsupportedError(
                f"a loop of {steps} steps of {each} nodes", f"loops that unroll to at most {MAX_NODES} nodes"
            )

    def check(self, shape: Sequence[int], *, folding: bool) -> None:
        """UnsupportedError for the result of an operation that is too large to be there, or to be computed now."""
        bounded(shape, max(MAX_COMPUTED, self.stored) if folding else MAX_ELEMENTS)

    def keep(self, elements: int) -> None:
        """A result of that many elements is computed at import; UnsupportedError when all are too much."""
        limit = 2 * MAX_COMPUTED + _KEPT * self.stored
        if self.kept + elements > limit:
            raise UnsupportedError("what is computed at import", f"at most {limit} elements")
        self.kept += elements


def unrollable(steps: int, what: str) -> int:
    """``steps``; UnsupportedError if they are too many to unroll."""
    if steps > MAX_STEPS:
        raise UnsupportedError(f"{what} of {steps} steps", f"at most {MAX_STEPS}")
    return steps


def bounded(shape: Sequence[int], limit: int = MAX_COMPUTED) -> None:
    """UnsupportedError for a computed tensor of more than ``limit`` elements."""
    if prod(shape) > limit:
        raise UnsupportedError(
            f"a tensor of {'x'.join(map(str, shape))} elements", f"tensors of at most {limit} elements"
        )


def subgraphs(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """The graphs inside nodes, at any depth."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield graph
                yield from subgraphs(graph.node)


def inner_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Tensors that are no initializers of the main graph: of attributes and of graphs inside nodes."""
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for nodes in bodies:
        inner = list(subgraphs(nodes))
        for graph in inner:
            yield from graph.initializer
        for part in (nodes, *(graph.node for graph in inner)):
            for node in part:
                for attribute in node.attribute:
                    yield from [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]


def check_sizes(model: onnx.ModelProto, where: str | None) -> None:
    """InputError for counts and declared shapes that no model has."""
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise InputError(f"the graph has {len(graph.node)} nodes; {MAX_NODES} is the limit", where=where)
    shapes = [(tensor.name, list(tensor.dims)) for tensor in (*graph.initializer, *inner_tensors(model))]
    shapes += [(tensor.values.name, list(tensor.dims)) for tensor in graph.sparse_initializer]
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        shapes.append((value.name, [dim.dim_value if dim.HasField("dim_value") else 1 for dim in dims]))
    for name, shape in shapes:
        if any(dim < 0 for dim in shape) or prod(max(1, dim) for dim in shape) > MAX_ELEMENTS:
            raise InputError(
                f"{name!r} says it has the shape {'x'.join(map(str, shape))}",
                hint=f"a tensor may have {MAX_ELEMENTS} elements",
                where=where,
            )


def check_functions(model: onnx.ModelProto, where: str | None) -> None:
    """InputError where functions in place of their calls make too many nodes, or call each other without end."""
    bodies = {(function.domain, function.name, function.overload): function.node for function in model.functions}
    known: dict[tuple[str, str, str], tuple[int, int]] = {}

    def expanded(nodes: Sequence[onnx.NodeProto], depth: int) -> tuple[int, int]:
        """Nodes with all functions in place, and how deep these are nested."""
        total = deepest = 0
        if depth > MAX_CALLS:
            raise InputError(f"its functions call each other more than {MAX_CALLS} deep, or without end", where=where)
        for node in (*nodes, *(inner for graph in subgraphs(nodes) for inner in graph.node)):
            key = (node.domain, node.op_type, node.overload)
            if key in bodies and key not in known:
                known[key] = expanded(bodies[key], depth + 1)
            count, levels = known.get(key, (1, -1))
            total, deepest = total + count, max(deepest, levels + 1)
        return total, deepest

    total, deepest = expanded(model.graph.node, 0)
    if deepest > MAX_CALLS or total > MAX_NODES:
        raise InputError(f"with its functions in place the graph has {total} nodes, {deepest} deep", where=where)
