"""An ONNX graph -> a function of `nn` operators.

One node becomes one call of a converter (:mod:`pimc.frontends.onnx.converters`).  Nodes whose inputs are all known at
import are computed here, by the reference interpreter on what their converter emits; nothing else folds.  A node
without a converter is replaced by the function that the ONNX standard defines it by, where there is one.  Everything
unsupported is collected and reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, defs, helper
from xdsl.dialects.builtin import (
    BFloat16Type,
    Float16Type,
    IntegerType,
    LocationAttr,
    ModuleOp,
    TensorType,
)
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from pimc.frontends.fx_values import ParamRef
from pimc.frontends.onnx.context import Converted, NeedsValue, NodeContext, Table
from pimc.frontends.onnx.elements import Array, array_of, element_of_array, held, onnx_type_of
from pimc.frontends.onnx.limits import Budget
from pimc.frontends.onnx.loops import unrolled
from pimc.frontends.onnx.nodes import bound, constant_of, domain_of, node_name, schema_of, unsupported_item, uses
from pimc.frontends.unsupported import UnsupportedError, UnsupportedItem
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.interpreter import Interpreter
from pimc.ir.interpreter.core import Frame, dense_values
from pimc.ir.interpreter.table import Value
from pimc.ir.locations import set_location, source_location

_MAX_CONSTANT: Final = 1 << 16
"""Elements of the largest computed tensor that is written into the IR rather than kept as a weight."""
_MAX_DEPTH: Final = 16
"""Functions within functions: a bound on recursion."""
_UNFIT: Final = (UnsupportedError, VerifyException, ArithmeticError, LookupError, StopIteration, TypeError, ValueError)
"""What converters raise on nodes that are unsupported, or do not follow the operator's definition: they rely on it."""


@dataclass
class GraphBuilder:
    """Converts the nodes of a graph, or of a function or branch inside it, into one block."""

    weights: ModelWeights
    converters: Table
    opsets: Mapping[str, int]
    block: Block = field(default_factory=Block)
    scope: str = ""
    depth: int = 0
    folding: bool = False
    items: list[UnsupportedItem] = field(default_factory=list)
    arguments: list[tuple[SSAValue, Array]] = field(default_factory=list)
    budget: Budget = field(default_factory=Budget)
    _values: dict[str, SSAValue] = field(default_factory=dict)
    _arrays: dict[str, Array] = field(default_factory=dict)
    _stored: set[str] = field(default_factory=set)
    _depends: dict[str, frozenset[str]] = field(default_factory=dict)
    _poison: set[str] = field(default_factory=set)
    _elements: dict[str, Attribute] = field(default_factory=dict)

    # -- values by name ------------------------------------------------------------------------------------------

    def define(self, name: str, value: SSAValue, depends: frozenset[str]) -> None:
        """``name`` is computed: ``value``, which follows from the graph inputs ``depends``."""
        self._values[name] = value
        self._depends[name] = depends

    def define_known(self, name: str, array: Array, *, stored: bool = False) -> None:
        """``name`` is known at import; ``stored``: it is one of the model's tensors."""
        self._arrays[name] = array
        self._depends[name] = frozenset()
        if stored:
            self._stored.add(name)

    def known(self, name: str) -> Array | None:
        """The values of ``name``, if they are known."""
        if name in self._arrays:
            return self._arrays[name]
        value = self._values.get(name)
        if value is not None and isinstance(value.owner, nn.ConstantOp):
            array = dense_values(value.owner.value)
            self._arrays[name] = _as_element(array, nn.tensor_of(value).element_type)
            return self._arrays[name]
        return None

    def depends_on(self, name: str) -> frozenset[str]:
        """The graph inputs that ``name`` follows from."""
        return self._depends.get(name, frozenset())

    def value(self, name: str, location: LocationAttr) -> SSAValue:
        """``name`` as a value; one known at import becomes an argument (while folding), a weight or a constant."""
        if name in self._values:
            return self._values[name]
        if name not in self._arrays:
            raise UnsupportedError(f"the value {name!r} is not defined")
        array = self._arrays[name]
        element = element_of_array(array)
        if self.folding:
            type_: TensorType[Attribute] = TensorType(element, array.shape)
            found: SSAValue = self.block.insert_arg(type_, len(self.block.args))
            self.arguments.append((found, array))
        elif array.dtype.kind not in "iub" and array.size > (1 if name in self._stored else _MAX_CONSTANT):
            found = self.add(self.param(self.weight(name, array)), location).results[0]
        else:
            found = self.add(nn.ConstantOp.from_array(array, element), location).results[0]
        self._values[name] = found
        return found

    def weight(self, name: str, array: Array) -> ParamRef:
        """A weight with these values; asking again for the same name gives the same one."""
        safe = re.sub(r"[\^\[\]*]", "_", name)
        if safe not in self.weights:
            self.weights.add(safe, array if array.dtype in (np.float16, np.float32) else array.astype(np.float32))
        self._elements[safe] = element_of_array(array)
        return ParamRef(safe, array.shape)

    def param(self, weight: ParamRef) -> nn.ParamOp:
        """The operation that brings in a weight."""
        element = self._elements[weight.name.removesuffix("^T")]
        return nn.ParamOp(weight.name, TensorType(element, weight.shape))

    def add(self, op: Operation, location: LocationAttr) -> Operation:
        """Append an operation; UnsupportedError if a result would be too large."""
        for result in op.results:
            if isinstance(result.type, TensorType):
                self.budget.check(result.type.get_shape(), folding=self.folding)
        self.block.add_op(set_location(op, location))
        return op

    # -- nodes -----------------------------------------------------------------------------------------------------

    def convert_all(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Convert nodes in order; what is unsupported is noted."""
        for node in nodes:
            self.convert(node)

    def convert(self, node: onnx.NodeProto) -> None:
        """Convert one node, or note why not."""
        self.budget.count_node()
        depends = frozenset[str]().union(*(self.depends_on(name) for name in uses(node)))
        if self._poison.intersection(uses(node)):
            self._poison.update(node.output)
            return
        try:
            self._convert(node, depends)
        except _UNFIT as error:
            if self.depth:
                raise
            self.refuse(unsupported_item(node, error), node.output)

    def refuse(self, item: UnsupportedItem, names: Iterable[str]) -> None:
        """Note what is unsupported; what follows from ``names`` is not converted, and not reported again."""
        self.items.append(item)
        self._poison.update(names)

    def _convert(self, node: onnx.NodeProto, depends: frozenset[str]) -> None:
        if node.op_type == "Constant" and not domain_of(node):
            self.define_known(node.output[0], constant_of(node))
        elif node.op_type == "If" and not domain_of(node):
            self._branch(node, depends)
        elif node.op_type in ("Loop", "Scan") and not domain_of(node):
            for name, found in zip(node.output, unrolled(self, node, self.opsets.get("", 1)), strict=False):
                if isinstance(found, SSAValue):
                    self.define(name, found, depends)
                else:
                    self.define_known(name, found)
        elif self._key(node) in self.converters and self._all_known(node):
            self._fold(node)
        else:
            self._define_all(node, self._converted(node), depends)

    def _all_known(self, node: onnx.NodeProto) -> bool:
        """Whether a node can be computed now; while one is, there is nothing to gain."""
        known = (not name or self.known(name) is not None for name in node.input)
        return not self.folding and bool(node.input) and all(known)

    def _key(self, node: onnx.NodeProto) -> str:
        """The converter's key of an operator."""
        return f"{node.domain}::{node.op_type}" if domain_of(node) else node.op_type

    def _converted(self, node: onnx.NodeProto) -> Sequence[SSAValue | None]:
        """The results of a node: by its converter, else by the function that defines it."""
        key = self._key(node)
        opset = self.opsets.get(domain_of(node), 1)
        converter = self.converters.get(key)
        if converter is None:
            return self._by_definition(node, key)
        converted: Converted = converter(NodeContext(self, node, opset))
        return [converted] if isinstance(converted, SSAValue) else converted

    def _define_all(self, node: onnx.NodeProto, results: Sequence[SSAValue | None], depends: frozenset[str]) -> None:
        for name, value in zip(node.output, results, strict=False):
            if name and value is not None:
                self.define(name, value, depends)
        missing = [name for name in list(node.output)[len(results) :] if name]
        if missing:
            raise UnsupportedError(f"the output {missing[0]!r} is not supported")

    def _fold(self, node: onnx.NodeProto) -> None:
        """Compute a node of known inputs: what its converter emits, in the reference interpreter."""
        scratch = GraphBuilder(
            self.weights, self.converters, self.opsets, folding=True, depth=self.depth + 1, budget=self.budget
        )
        for name in uses(node):
            array = self.known(name)
            if array is not None:
                scratch.define_known(name, array)
        results = scratch._converted(node)
        names = [name for name, value in zip(node.output, results, strict=False) if name and value is not None]
        values = [value for name, value in zip(node.output, results, strict=False) if name and value is not None]
        for name, value, array in zip(names, values, scratch.evaluate(values), strict=True):
            self.budget.keep(array.size)
            self.define_known(name, _as_element(array, nn.tensor_of(value).element_type))

    def evaluate(self, values: Sequence[SSAValue]) -> list[Array]:
        """Run this builder's block on its arguments."""
        self.block.add_op(ReturnOp(*values))
        frame = Frame(Interpreter(ModuleOp([]), self.weights, "f32"))
        arguments: list[Value] = [held(array) for _, array in self.arguments]
        with np.errstate(all="ignore"):
            found = frame.run_region(Region(self.block), arguments)
        return [np.asarray(value) for value in found]

    # -- graphs in graphs ------------------------------------------------------------------------------------------

    def _branch(self, node: onnx.NodeProto, depends: frozenset[str]) -> None:
        """``If`` of a known condition: the branch that is taken, in place."""
        branches = [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
        kinds = {value.type.WhichOneof("value") for graph in branches for value in graph.output}
        if kinds - {"tensor_type", None}:
            raise UnsupportedError("a branch whose result is a sequence or an optional", "results that are tensors")
        condition = self.known(node.input[0])
        if condition is None:
            raise NeedsValue("the condition of a branch", self.depends_on(node.input[0]))
        chosen = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        graph = next(attribute.g for attribute in node.attribute if attribute.name == chosen)
        inner = self._inner(node)
        for tensor in graph.initializer:
            inner.define_known(tensor.name, array_of(tensor), stored=True)
        inner.convert_all(graph.node)
        self._export(inner, [value.name for value in graph.output], node, depends)

    def inside(
        self, node: onnx.NodeProto, graph: onnx.GraphProto, given: Sequence[SSAValue | Array]
    ) -> list[SSAValue | Array]:
        """The outputs of a graph inside ``node`` for values of its inputs; arrays where they are known."""
        inner = self._inner(node)
        depends = frozenset[str]().union(*(self.depends_on(name) for name in uses(node)))
        for formal, value in zip(graph.input, given, strict=True):
            if isinstance(value, SSAValue):
                inner.define(formal.name, value, depends)
            else:
                inner.define_known(formal.name, value)
        for tensor in graph.initializer:
            inner.define_known(tensor.name, array_of(tensor), stored=True)
        inner.convert_all(graph.node)
        place = source_location(inner.scope)
        arrays = [inner.known(output.name) for output in graph.output]
        pairs = zip(arrays, graph.output, strict=True)
        return [inner.value(output.name, place) if array is None else array for array, output in pairs]

    def _inner(self, node: onnx.NodeProto) -> GraphBuilder:
        """A builder for nodes inside ``node`` that sees all names of this one, and emits into the same block."""
        if self.depth >= _MAX_DEPTH:
            raise UnsupportedError(f"functions nested more than {_MAX_DEPTH} deep")
        inner = GraphBuilder(
            self.weights, self.converters, self.opsets, self.block, f"{self.scope}{node_name(node)}/", self.depth + 1,
            self.folding, self.items, self.arguments, self.budget,
        )  # fmt: skip
        inner._values, inner._arrays = dict(self._values), dict(self._arrays)
        inner._depends, inner._elements = dict(self._depends), self._elements
        inner._stored = set(self._stored)
        return inner

    def _export(self, inner: GraphBuilder, names: Sequence[str], node: onnx.NodeProto, depends: frozenset[str]) -> None:
        """Give the outputs of ``node`` what ``names`` are inside."""
        for outer, name in zip(node.output, names, strict=False):
            array = inner.known(name)
            if array is not None and not self.folding:
                self.define_known(outer, array, stored=name in inner._stored)
            elif outer:
                self.define(outer, inner.value(name, source_location(inner.scope)), depends | inner.depends_on(name))

    def _by_definition(self, node: onnx.NodeProto, key: str) -> Sequence[SSAValue | None]:
        """The function by which ONNX defines an operator, in place."""
        schema = schema_of(node, self.opsets)
        function = None if schema is None else self._definition(node, schema)
        if schema is None or function is None:
            raise UnsupportedError("no conversion", _alternative(key))
        inner = self._inner(node)
        inner.opsets = {opset_id.domain: opset_id.version for opset_id in function.opset_import}
        inner._values, inner._arrays, inner._stored = {}, {}, set()
        for formal, actual in zip(function.input, [*node.input, *[""] * len(function.input)], strict=False):
            if actual and (array := self.known(actual)) is not None:
                inner.define_known(formal, array, stored=actual in self._stored)
            elif actual:
                inner.define(formal, self.value(actual, source_location(self.scope)), self.depends_on(actual))
        defaults = {name: item.default_value for name, item in schema.attributes.items()}
        attributes = {name: value for name, value in defaults.items() if value.name}
        attributes |= {attribute.name: attribute for attribute in (*function.attribute_proto, *node.attribute)}
        absent = {formal for formal, actual in zip(function.input, node.input, strict=False) if not actual}
        absent.update(list(function.input)[len(node.input) :])
        inner.convert_all(bound(function.node, attributes, absent))
        location = source_location(f"{self.scope}{node_name(node)}")
        wanted = zip(function.output, node.output, strict=False)
        return [inner.value(name, location) if outer else None for name, outer in wanted]

    def _definition(self, node: onnx.NodeProto, schema: defs.OpSchema) -> onnx.FunctionProto | None:
        if schema.has_context_dependent_function:
            types = [self._type_proto(name).SerializeToString() for name in node.input]
            body = schema.get_context_dependent_function(node.SerializeToString(), types)
        elif schema.has_function:
            body = schema.function_body.SerializeToString()
        else:
            return None
        if not body:
            return None
        function = onnx.FunctionProto()
        function.ParseFromString(body)
        return function

    def _type_proto(self, name: str) -> onnx.TypeProto:
        if not name:
            return onnx.TypeProto()
        array = self.known(name)
        if array is not None:
            return helper.make_tensor_type_proto(onnx_type_of(element_of_array(array)), array.shape)
        type_ = nn.tensor_of(self._values[name])
        return helper.make_tensor_type_proto(onnx_type_of(type_.element_type), type_.get_shape())


def _as_element(array: Array, element: Attribute) -> Array:
    """An array as held by the interpreter in the numpy type of its element type."""
    if isinstance(element, Float16Type):
        return array.astype(np.float16)
    if isinstance(element, BFloat16Type):
        return array.astype(helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
    if isinstance(element, IntegerType) and element.width.data == 1:
        return array.astype(np.bool_)
    return array.astype(helper.tensor_dtype_to_np_dtype(onnx_type_of(element)))


_ALTERNATIVES: Final[Mapping[str, str]] = {
    "RandomNormal": "random numbers as an input of the model",
    "RandomUniform": "random numbers as an input of the model",
    "RandomNormalLike": "random numbers as an input of the model",
    "RandomUniformLike": "random numbers as an input of the model",
    "Bernoulli": "random numbers as an input of the model",
    "Multinomial": "the token chosen outside the model",
    "NonZero": "a mask and Where, whose result has a fixed shape",
    "Unique": "the work done before the model",
}


def _alternative(key: str) -> str:
    return _ALTERNATIVES.get(key, "docs/conformance.md lists the supported operators")
