"""An exported FX graph -> a function of `nn` primitives.
 One node becomes one call of a converter from the table in :mod:`pimc.frontends.aten`.  Nodes that nothing
uses are left out; everything unsupported is collected and reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from xdsl.dialects.arith import ConstantOp as IndexConstantOp
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    Float32Type,
    FunctionType,
    IndexType,
    IntegerAttr,
    IntegerType,
    LocationAttr,
    StringAttr,
    TensorType,
    f32,
    i32,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from pimc.diagnostics import InputError
from pimc.frontends.fx_values import (
    CacheRef,
    Element,
    Meaning,
    ParamRef,
    Poison,
    UnsupportedError,
    arguments_of,
    element_of,
    module_path,
    result_type,
    source_line,
    static_shape,
    target_of,
)
from pimc.frontends.tabulate import Column
from pimc.frontends.torch_export import K_CACHE, MODEL, V_CACHE
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.locations import set_location, source_location

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

Converter = Callable[["NodeContext"], "Meaning"]

_MAX_CONSTANT: Final = 4096
"""Elements of the largest tensor that is written into the IR rather than kept as a weight."""


@dataclass
class GraphImporter:
    """Imports one entry point.  ``names`` maps parameter paths in the wrapper to checkpoint names."""

    program: ExportedProgram
    entry: str
    names: Mapping[str, str]
    weights: ModelWeights
    columns: Mapping[torch.fx.Node, Column]
    converters: Mapping[str, Converter]
    block: Block = field(default_factory=Block)
    meanings: dict[torch.fx.Node, Meaning] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)

    def run(self) -> FuncOp:
        """The function; InputError with all operators that have no conversion."""
        inputs = self._declare_inputs()
        live = self._live_nodes()
        results: list[SSAValue] = []
        for node in self.program.graph.nodes:
            if node.op == "call_function" and node in live:
                self._convert(node)
            elif node.op == "output" and not self.unsupported:
                context = NodeContext(self, node)
                results = [context.value(value) for value in node.args[0]]
        if self.unsupported:
            self._refuse()
        place = source_location("entry")
        self.block.add_op(set_location(ReturnOp(*results), place))
        function_type = FunctionType.from_lists(
            [value.type for value in self.block.args], [value.type for value in results]
        )
        names = ArrayAttr([DictionaryAttr({"pimc.name": StringAttr(name)}) for name in inputs])
        return set_location(FuncOp(self.entry, function_type, Region(self.block), arg_attrs=names), place)

    def _declare_inputs(self) -> list[str]:
        signature = self.program.graph_signature
        state: dict[str, torch.Tensor] = {**self.program.state_dict, **self.program.constants}
        lifted = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        inputs: list[str] = []
        for node in self.program.graph.find_nodes(op="placeholder"):
            if node.name in signature.inputs_to_parameters:
                path = signature.inputs_to_parameters[node.name]
                self.meanings[node] = ParamRef(self.names[path], static_shape(node.meta["val"].shape))
            elif node.name in lifted:
                self.meanings[node] = self._buffer(lifted[node.name], state)
            elif node.meta.get("val") is not None:
                argument = self.block.insert_arg(result_type(node), len(self.block.args))
                argument.name_hint = node.name
                argument.location = source_location("entry")
                self.meanings[node] = argument
                inputs.append(node.name)
        return inputs

    def _buffer(self, path: str, state: Mapping[str, torch.Tensor]) -> Meaning:
        for prefix in (K_CACHE, V_CACHE):
            if path.startswith(prefix):
                return CacheRef(prefix.removesuffix("_"), int(path.removeprefix(prefix)))
        value = state[path]
        element = element_of(value.dtype)
        shape = static_shape(value.shape)
        if element == f32 and value.numel() > 1:
            name = path.removeprefix(MODEL + ".")
            if name not in self.weights:
                self.weights.add(name, value.detach().float().numpy())
            return ParamRef(name, shape)
        if value.numel() > _MAX_CONSTANT:
            raise InputError(f"buffer {path!r} with {value.numel()} integers is too large for a constant")
        return self.emit(nn.ConstantOp.from_array(value.numpy(), element), source_location("entry"))

    def emit(self, op: Operation, location: LocationAttr) -> SSAValue:
        """Append ``op``; its first result."""
        self.block.add_op(set_location(op, location))
        return op.results[0] if op.results else SSAValue.get(self.block.args[0])

    def _live_nodes(self) -> set[torch.fx.Node]:
        """Nodes that the outputs or the caches depend on; a tabulated node depends on the positions alone."""
        live: set[torch.fx.Node] = set()
        for node in reversed(list(self.program.graph.nodes)):
            writes = node.op == "call_function" and target_of(node).endswith("_.default")
            if node.op == "output" or writes or node in live:
                live.add(node)
                if node not in self.columns:
                    live.update(node.all_input_nodes)
        return live

    def _convert(self, node: torch.fx.Node) -> None:
        context = NodeContext(self, node)
        target = target_of(node)
        converter = self.converters.get(target)
        try:
            if node in self.columns:
                self.meanings[node] = context.tabulated(self.columns[node])
            elif converter is None:
                raise UnsupportedError("no conversion")
            elif any(isinstance(self.meanings.get(source), Poison) for source in node.all_input_nodes):
                self.meanings[node] = Poison()
            else:
                self.meanings[node] = converter(context)
        except (UnsupportedError, VerifyException) as error:
            place = ", ".join(filter(None, (module_path(node, MODEL), source_line(node))))
            self.unsupported.append(f"{target} at {place}: {error}")
            self.meanings[node] = Poison()

    def _refuse(self) -> None:
        kinds: dict[str, list[str]] = {}
        for text in self.unsupported:
            kinds.setdefault(text.split(" at ")[0], []).append(text)
        lines = [texts[0] + (f" (and {len(texts) - 1} more)" if texts[1:] else "") for texts in kinds.values()]
        raise InputError(
            f"{len(kinds)} unsupported operator(s) in @{self.entry}: " + "; ".join(lines),
            hint="add a converter to pimc/frontends/aten.py",
        )


@dataclass(frozen=True)
class NodeContext:
    """One node under conversion: its arguments, and how to emit operations at its location."""

    importer: GraphImporter
    node: torch.fx.Node

    @property
    def location(self) -> LocationAttr:
        """The module path as a location."""
        return source_location(module_path(self.node, MODEL))

    @property
    def arguments(self) -> dict[str, object]:
        """Arguments by schema name."""
        return arguments_of(self.node)

    @property
    def type(self) -> TensorType[Attribute]:
        """Type of the result."""
        return result_type(self.node)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self.type.get_shape()

    def emit(self, op: Operation) -> SSAValue:
        """Append an operation at this node's location; its result."""
        return self.importer.emit(op, self.location)

    def meaning(self, argument: object) -> Meaning:
        """What an argument that is a node stands for."""
        found = self.importer.meanings.get(argument)
        if found is None:
            raise UnsupportedError(f"argument {argument!r} is no tensor")
        return found

    def value(self, argument: object) -> SSAValue:
        """A tensor argument as a value; weights and caches are brought in by an operation here."""
        found = self.meaning(argument)
        if isinstance(found, ParamRef):
            return self.param(found)
        if isinstance(found, CacheRef):
            return self.read_cache(found, argument)
        if not isinstance(found, SSAValue):
            raise UnsupportedError("a list of tensors where one is wanted")
        return found

    def param(self, found: ParamRef) -> SSAValue:
        """The operation that brings in a weight."""
        return self.emit(nn.ParamOp(found.name, TensorType(f32, found.shape)))

    def read_cache(self, found: CacheRef, buffer: object) -> SSAValue:
        """The cache of a layer as ``[1, Hkv, S, D]``."""
        _, heads, slots, size = static_shape(buffer.meta["val"].shape)  # type: ignore[attr-defined]
        type_ = TensorType(f32, (1, slots, heads, size))
        read = self.emit(nn.CacheReadOp(found.symbol, self.index(found.layer), type_))
        return self.emit(nn.TransposeOp(read, (0, 2, 1, 3)))

    def index(self, value: int) -> SSAValue:
        """An index constant."""
        return self.emit(IndexConstantOp(IntegerAttr(value, IndexType())))

    def constant(self, value: object, element: Attribute) -> SSAValue:
        """A scalar constant."""
        if not isinstance(element, Float32Type | IntegerType):
            raise UnsupportedError(f"a constant of type {element}")
        return self.emit(nn.ConstantOp.from_array(np.asarray(value), element))

    def cast(self, value: SSAValue, element: Element | Attribute) -> SSAValue:
        """``value`` with another element type, if it has not that one."""
        type_ = nn.tensor_of(value)
        return value if type_.element_type == element else self.emit(nn.CastOp(value, element))

    def operand(self, argument: object, element: Attribute) -> SSAValue:
        """A tensor or Python number as a value of the given element type."""
        if isinstance(argument, bool | int | float):
            return self.constant(argument, element)
        return self.cast(self.value(argument), element)

    def reshape(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """``value`` in another shape, if it has not that one."""
        return value if nn.tensor_of(value).get_shape() == tuple(shape) else self.emit(nn.ReshapeOp(value, shape))

    def tabulated(self, column: Column) -> SSAValue:
        """Rows of a position table for this call's positions, in the shape of the node."""
        importer = self.importer
        rows = importer.weights.shape(column.table)[0]
        table = self.emit(nn.ParamOp(column.table, TensorType(f32, (rows, column.width))))
        position = next(arg for arg in importer.block.args if arg.name_hint == "position")
        count = int(np.prod(self.shape[:-1]))
        iota = self.emit(nn.IotaOp(TensorType(i32, (count,))))
        positions = self.reshape(self.emit(nn.AddOp(position, iota)), (1, count))
        found = self.emit(nn.EmbeddingOp(table, positions))
        part = nn.SliceOp(found, (0, 0, column.start), (1, count, column.stop))
        return self.reshape(self.emit(part), self.shape)
