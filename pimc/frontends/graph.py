"""An exported FX graph -> a function of `nn` primitives.

One node becomes one call of a converter from the table in :mod:`pimc.frontends.aten`.  Nodes that nothing uses are
left out; everything unsupported is collected and reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, LocationAttr, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_fold import Folder
from pimc.frontends.fx_state import is_weight, output_names, plain_array, weight_array
from pimc.frontends.fx_values import (
    CacheRef,
    Folded,
    Meaning,
    ParamRef,
    Poison,
    element_of,
    module_path,
    mutates,
    original_of,
    result_type,
    source_line,
    static_shape,
    target_of,
    tensor_type,
)
from pimc.frontends.tabulate import Column
from pimc.frontends.unsupported import UnsupportedError, UnsupportedItem, UnsupportedModelError
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.locations import set_location, source_location

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

Converter: TypeAlias = Callable[[NodeContext], Meaning]

_MAX_CONSTANT: Final = 1 << 22
"""Elements of the largest tensor that is written into the IR."""


@dataclass
class GraphImporter:
    """Imports one entry point.

    ``names`` maps paths of parameters and buffers in the exported module to weight names; those not in it keep their
    path.  ``prefix`` is the attribute under which a wrapper holds the user's module ("" without a wrapper);
    ``caches`` are the buffers that are caches of a decoder, by path; ``columns`` are nodes that become rows of a table
    of positions, ``folder`` has those that are computed at import.
    """

    program: ExportedProgram
    entry: str
    names: Mapping[str, str]
    weights: ModelWeights
    converters: Mapping[str, Converter]
    columns: Mapping[torch.fx.Node, Column] = field(default_factory=dict)
    prefix: str = ""
    folder: Folder = field(default_factory=Folder)
    caches: Mapping[str, CacheRef] = field(default_factory=dict)
    block: Block = field(default_factory=Block)
    meanings: dict[torch.fx.Node, Meaning] = field(default_factory=dict)
    unsupported: list[UnsupportedItem] = field(default_factory=list)

    def run(self) -> FuncOp:
        """The function; UnsupportedModelError with everything that has no conversion."""
        inputs = self._declare_inputs()
        live = self._live_nodes()
        results: list[SSAValue] = []
        outputs = output_names(self.program)
        for node in self.program.graph.nodes:
            if node.op == "call_function" and node in live:
                self._convert(node)
            elif node.op == "output":
                results = self._outputs(node, outputs)
        if self.unsupported:
            raise UnsupportedModelError(self.unsupported, where=f"@{self.entry}")
        place = source_location("entry")
        self.block.add_op(set_location(ReturnOp(*results), place))
        function_type = FunctionType.from_lists(
            [value.type for value in self.block.args], [value.type for value in results]
        )
        function = FuncOp(
            self.entry,
            function_type,
            Region(self.block),
            arg_attrs=_named(inputs),
            res_attrs=None if self.prefix else _named(outputs.values()),
        )
        return set_location(function, place)

    def meaning(self, argument: object) -> Meaning | None:
        """What an argument stands for; None for one that is no node or no tensor."""
        found = self.meanings.get(argument)
        if isinstance(found, Folded):
            found = self.meanings[argument] = self._folded(argument)
        return found

    def _folded(self, node: torch.fx.Node) -> Meaning:
        """A computed value as a weight; integers, single numbers, and one number repeated as constants."""
        value = self.folder.value(node)
        element, shape = element_of(value.dtype), static_shape(value.shape)
        place = source_location(module_path(node, self.prefix))
        flat = value.reshape(-1)
        if value.numel() > 1 and bool((flat == flat[0]).all()):
            number = self.emit(nn.ConstantOp.from_array(plain_array(flat[0]), element), place)
            return self.emit(nn.BroadcastToOp(number, shape), place)
        if not is_weight(value, named=False):
            return self.emit(nn.ConstantOp.from_array(plain_array(value), element), place)
        name = f"{module_path(node, self.prefix)}.{node.name}"
        self.weights.add(name, weight_array(value))
        return ParamRef(name, shape)

    def emit(self, op: Operation, location: LocationAttr) -> SSAValue:
        """Append ``op``; its first result."""
        self.block.add_op(set_location(op, location))
        return op.results[0] if op.results else SSAValue.get(self.block.args[0])

    def stand_in(self, node: torch.fx.Node) -> Meaning:
        """A value of the type of an unsupported node, so that what depends on it is looked at as well."""
        results = node.meta.get("val")
        several = isinstance(results, list | tuple)
        try:
            types = [tensor_type(value) for value in (results if several else [results])]
        except UnsupportedError:
            return Poison()
        values = [self.emit(nn.ParamOp(node.name, type_), source_location("entry")) for type_ in types]
        return values if several else values[0]

    def _outputs(self, node: torch.fx.Node, names: Mapping[int, str]) -> list[SSAValue]:
        """The results, in the order of ``names``; nothing where an operator they need is unsupported."""
        context = NodeContext(self, node)
        for spec in self.program.graph_signature.output_specs:
            if "MUTATION" in spec.kind.name:
                with _Collecting(self, node, f"write to {spec.target}"):
                    raise UnsupportedError("the program changes an input or a buffer", "return the new value")
        results: list[SSAValue] = []
        for index in names:
            value = node.args[0][index]
            if not isinstance(self.meanings.get(value), Poison):
                with _Collecting(self, node, f"output {names[index]}"):
                    results.append(context.value(value))
        return results

    def _declare_inputs(self) -> list[str]:
        signature = self.program.graph_signature
        state: dict[str, torch.Tensor] = {**self.program.state_dict, **self.program.constants}
        held = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        inputs: list[str] = []
        for node in self.program.graph.find_nodes(op="placeholder"):
            with _Collecting(self, node, f"input {node.name}"):
                if node.name in held:
                    if node.users:
                        self.meanings[node] = self._state(held[node.name], state)
                elif hasattr(node.meta.get("val"), "shape"):
                    argument = self.block.insert_arg(result_type(node), len(self.block.args))
                    argument.name_hint = node.name
                    argument.location = source_location("entry")
                    self.meanings[node] = argument
                    inputs.append(node.name)
        return inputs

    def _state(self, path: str, state: Mapping[str, torch.Tensor]) -> Meaning:
        """A parameter, buffer or lifted constant: floats are weights, integers and single numbers constants."""
        if self.caches and path in self.program.graph_signature.parameters:
            return ParamRef(self.names[path], static_shape(state[path].shape))
        if path in self.caches:
            return self.caches[path]
        value = state[path]
        element = element_of(value.dtype)
        if is_weight(value, named=path in self.program.graph_signature.parameters):
            name = self.names.get(path, path.removeprefix(self.prefix + "."))
            if name not in self.weights:
                self.weights.add(name, weight_array(value), absent=value.is_meta)
            return ParamRef(name, static_shape(value.shape))
        if value.is_meta:
            raise UnsupportedError("a buffer of integers on the meta device, whose values the program needs")
        if value.numel() > _MAX_CONSTANT:
            raise UnsupportedError(f"a buffer of {value.numel()} integers (or a mask), too large for a constant")
        return self.emit(nn.ConstantOp.from_array(plain_array(value), element), source_location("entry"))

    def _live_nodes(self) -> set[torch.fx.Node]:
        """Nodes that the outputs or the caches depend on; a tabulated node depends on the positions alone."""
        live: set[torch.fx.Node] = set()
        for node in reversed(list(self.program.graph.nodes)):
            if node.op == "output" or node in live or (node.op == "call_function" and mutates(node)):
                live.add(node)
                if node not in self.columns:
                    live.update(node.all_input_nodes)
        return live

    def _convert(self, node: torch.fx.Node) -> None:
        context = NodeContext(self, node)
        converter = self.converters.get(target_of(node))
        if node in self.folder.foldable:
            self.meanings[node] = Folded()
            return
        self.meanings[node] = Poison()
        _, operator = original_of(node)
        with _Collecting(self, node, operator):
            if node in self.columns:
                self.meanings[node] = context.tabulated(self.columns[node])
            elif converter is None:
                part = "" if operator == target_of(node) else f" of its part {target_of(node)}"
                raise UnsupportedError(f"no conversion{part}", alternative_to(operator))
            elif not any(isinstance(self.meanings.get(source), Poison) for source in node.all_input_nodes):
                self.meanings[node] = converter(context)


@dataclass(frozen=True)
class _Collecting:
    """Turns an UnsupportedError inside into an item of the importer's list."""

    importer: GraphImporter
    node: torch.fx.Node
    operator: str

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, UnsupportedError | VerifyException):
            return False
        reason, alternative = str(error), None
        if isinstance(error, UnsupportedError):
            reason, alternative = error.reason, error.alternative
        path = module_path(self.node, self.importer.prefix)
        item = UnsupportedItem(self.operator, path, source_line(self.node), reason, alternative)
        self.importer.unsupported.append(item)
        self.importer.meanings[self.node] = self.importer.stand_in(self.node)
        return True


_RANDOM: Final = frozenset({"rand", "randn", "randint", "bernoulli", "multinomial", "normal", "dropout", "randperm"})
_DATA_DEPENDENT: Final = frozenset({
    "nonzero", "nonzero_numpy", "argwhere", "item", "_local_scalar_dense", "unique2", "_unique2", "unique_dim",
    "unique_consecutive", "masked_select", "repeat_interleave", "combinations", "bincount",
})  # fmt: skip


def alternative_to(target: str) -> str | None:
    """What a user could write instead of an operator without conversion."""
    name = target.removeprefix("aten.").partition(".")[0]
    if name.removesuffix("_like").removeprefix("native_") in _RANDOM:
        return "make the random numbers outside and give them as an input; model.eval() turns dropout off"
    if name in _DATA_DEPENDENT:
        return "shapes must not depend on values: torch.where or a multiplication with the mask"
    if name == "sort":
        return "torch.topk"
    if not target.startswith("aten."):
        return "operators of ATen, which torch.export makes of plain PyTorch code"
    return None


def _named(names: object) -> ArrayAttr[DictionaryAttr]:
    assert hasattr(names, "__iter__")
    return ArrayAttr([DictionaryAttr({"pimc.name": StringAttr(name)}) for name in names])
