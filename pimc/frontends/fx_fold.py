"""What an exported graph computes of constants and weights alone is computed once, at import, by PyTorch.

Position numbers, masks, tables of sines, reparametrised weights: none of it depends on the inputs.  Views of weights
are left to the converters, which refer to the stored weight instead of making another one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pimc.frontends.fx_values import mutates, target_of
from pimc.frontends.unsupported import UnsupportedError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_LARGEST: Final = 1 << 20
"""Elements of the largest result that is computed; larger ones are left to the converters."""

_VIEWS: Final = frozenset({
    "getitem", "aten.t.default", "aten.transpose.int", "aten.permute.default", "aten.slice.Tensor", "aten.select.int",
    "aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.unsqueeze.default",
    "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.expand.default", "aten.split.Tensor",
    "aten.split_with_sizes.default", "aten.chunk.default", "aten.unbind.int", "aten.detach.default",
    "aten.alias.default", "aten.clone.default", "aten.contiguous.default", "aten.to.dtype", "aten._to_copy.default",
    "aten.flatten.using_ints", "aten.lift_fresh_copy.default", "aten.expand_as.default", "aten.to.dtype_layout",
})  # fmt: skip


@dataclass
class Folder:
    """The nodes that need no input, and their values on demand.

    ``state`` maps placeholders to the tensors they stand for.
    """

    state: Mapping[torch.fx.Node, torch.Tensor] = field(default_factory=dict)
    foldable: frozenset[torch.fx.Node] = frozenset()
    values: dict[torch.fx.Node, object] = field(default_factory=dict)

    def value(self, node: torch.fx.Node) -> torch.Tensor:
        """The tensor that ``node`` is; UnsupportedError where PyTorch cannot compute it."""
        import torch

        pending = [node]
        with torch.no_grad():
            while pending:
                current = pending[-1]
                missing = [source for source in current.all_input_nodes if source not in self.values]
                if current in self.values or not missing:
                    self.values.setdefault(current, self._compute(current))
                    pending.pop()
                else:
                    pending.extend(missing)
        found = self.values[node]
        if not isinstance(found, torch.Tensor):
            raise UnsupportedError("a list of tensors where one is wanted")
        return found

    def _compute(self, node: torch.fx.Node) -> object:
        import torch

        if node in self.values:
            return self.values[node]
        if node.op == "placeholder":
            return self.state[node]
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        try:
            return node.target(*args, **kwargs)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise UnsupportedError(f"cannot be computed: {error}") from error


def find_foldable(program: ExportedProgram) -> Folder:
    """The nodes whose value can be computed now and is more than a view of a weight."""
    signature = program.graph_signature
    tensors: dict[str, torch.Tensor] = {**program.state_dict, **program.constants}
    held = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    state: dict[torch.fx.Node, torch.Tensor] = {}
    fixed: set[torch.fx.Node] = set()
    computed: set[torch.fx.Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in held and not tensors[held[node.name]].is_meta:
            state[node] = tensors[held[node.name]]
            fixed.add(node)
        elif node.op == "call_function" and fixed.issuperset(node.all_input_nodes) and _is_computable(node):
            fixed.add(node)
            if target_of(node) not in _VIEWS or not computed.isdisjoint(node.all_input_nodes):
                computed.add(node)
    return Folder(state, frozenset(computed))


def _is_computable(node: torch.fx.Node) -> bool:
    import torch

    results = node.meta.get("val")
    for result in results if isinstance(results, list | tuple) else [results]:
        if not isinstance(result, torch.Tensor) or result.device.type != "cpu" or math.prod(result.shape) > _LARGEST:
            return False
    if target_of(node) == "getitem":
        return True
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and not mutates(node)
        and torch.Tag.nondeterministic_seeded not in node.target.tags
    )
