"""Layers that are alike are exported a few times, not all: the rest are copies of the last one in the IR.

``torch.export`` takes most of an import, and its time grows with the depth.  So a decoder whose layers are modules of
equal make is exported with ``EXPORTED`` of them, and the operations of the last are repeated with the names of the
others' weights and caches.  What is made is what a whole export makes; where the layers, or what became of them, are
not alike, there is a whole export.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from xdsl.dialects import arith
from xdsl.dialects.builtin import FileLineColLoc, IndexType, IntegerAttr, LocationAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from pimc.ir import nn
from pimc.ir.locations import source_location
from pimc.ir.weights import FamilyName
from pimc.passes.repeats import LoopForm, NotALoop, Repeat, Result, index_constant, is_leaf, label, loop_form

if TYPE_CHECKING:
    import torch

EXPORTED: Final = 3
"""Layers that are exported: two show how they connect, the third that this goes on."""

_OWN: Final = frozenset({"_parameters", "_buffers", "_modules"})
_NUMBERS: Final = frozenset({"layer_idx", "layer_id", "layer_index", "layer_number"})


@dataclass(frozen=True)
class Stack:
    """The layers of a model: the path of their list, and how many they are."""

    path: str
    count: int

    def within(self, index: int) -> str:
        """What the names of all that is in a layer begin with."""
        return f"{self.path}.{index}"

    @contextlib.contextmanager
    def shortened(self, model: torch.nn.Module) -> Iterator[None]:
        """While open, the model has the first ``EXPORTED`` layers only."""
        parent, _, name = self.path.rpartition(".")
        holder = model.get_submodule(parent)
        layers = getattr(holder, name)
        setattr(holder, name, layers[:EXPORTED])
        try:
            yield
        finally:
            setattr(holder, name, layers)


def stack_of(model: torch.nn.Module) -> Stack | None:
    """The stack of a model whose layers are alike; None where they are not, or too few for it to matter."""
    import torch

    config = model.config
    count = int(config.num_hidden_layers)
    kinds = getattr(config, "layer_types", None) or ["one"]
    lists = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    if count <= EXPORTED or len(lists) != 1 or len(set(kinds)) != 1:
        return None
    path, layers = lists[0]
    first = _make(layers[0], 0)
    return Stack(path, count) if all(_make(layer, index) == first for index, layer in enumerate(layers)) else None


def _make(layer: torch.nn.Module, index: int) -> list[tuple[object, ...]]:
    """All that says what a layer computes, but for the values of its parameters and its own number."""
    found: list[tuple[object, ...]] = []
    for path, module in layer.named_modules():
        state = {
            key: "its own" if key in _NUMBERS and value == index else _comparable(value)
            for key, value in vars(module).items()
            if key not in _OWN
        }
        shapes = {name: None if value is None else tuple(value.shape) for name, value in module._parameters.items()}
        # Buffers are values: those of layers are seldom there, and never so large that this takes time.
        buffers = {name: None if value is None else value.tolist() for name, value in module._buffers.items()}
        found.append((path, type(module), state, shapes, buffers))
    return found


def _comparable(value: object) -> object:
    """A value that equals those of equal meaning: partial functions compare by identity."""
    return (value.func, value.args, value.keywords) if isinstance(value, partial) else value


def complete(module: ModuleOp, stack: Stack) -> bool:
    """Give every entry point of a module, imported of the first layers, the others; False where its layers are not
    alike in the IR (the module is of no use then).
    """
    try:
        for function in [op for op in module.ops if isinstance(op, FuncOp)]:
            _Copier(function, stack).run()
    except NotALoop:
        return False
    return True


class _Copier:
    """Appends layers to the function of one entry point."""

    def __init__(self, function: FuncOp, stack: Stack) -> None:
        self.stack = stack
        self.block = function.body.blocks[0]
        self.ops = [op for op in self.block.ops if not is_leaf(op)][:-1]
        self.repeat = self._find()
        self.form: LoopForm = loop_form(self.ops, self.repeat)
        self.leaves = self._leaves()

    def run(self) -> None:
        """Put copies of the last layer behind it, each on the results of the one before."""
        before, last = self._copy(EXPORTED - 2), self._copy(EXPORTED - 1)
        inputs = {source: before[source.op].results[source.result] for source in self.form.carried}
        current: dict[Result, SSAValue] = {
            source: last[source.op].results[source.result] for source in self.form.carried
        }
        inside = set(last)
        outside = {source: [use for use in end.uses if use.operation not in inside] for source, end in current.items()}
        block, layer, end = self.block, self._between(before[-1], last[-1]), last[-1]
        if not self.leaves.keys() <= set(layer):
            raise NotALoop("a weight of a layer stands outside it")
        for index in range(EXPORTED, self.stack.count):
            mapping: dict[SSAValue, SSAValue] = {value: current[source] for source, value in inputs.items()}
            for op in layer:
                new = self._of_layer(op, index, mapping)
                new.location = self._location(op.location, index)
                block.insert_op_after(new, end)
                end = new
            ends = {source: last[source.op].results[source.result] for source in self.form.carried}
            current = {source: mapping[value] for source, value in ends.items()}
        for source, uses in outside.items():
            for use in uses:
                use.operation.operands[use.index] = current[source]

    @staticmethod
    def _between(before: Operation, last: Operation) -> list[Operation]:
        """The operations behind one, up to another, leaves among them."""
        found = []
        op = before.next_op
        while op is not None:
            found.append(op)
            op = None if op is last else op.next_op
        return found

    def _of_layer(self, op: Operation, index: int, mapping: dict[SSAValue, SSAValue]) -> Operation:
        """The operation of layer ``index`` for one of the last layer that was exported."""
        meaning = self.leaves.get(op)
        if meaning is None:
            return op.clone(value_mapper=mapping)
        new: Operation
        if isinstance(meaning, int):
            new = arith.ConstantOp(IntegerAttr(index + meaning, IndexType()))
        else:
            new = nn.ParamOp(meaning.member(index), nn.tensor_of(op.results[0]))
        new.results[0].name_hint = op.results[0].name_hint
        mapping[op.results[0]] = new.results[0]
        return new

    def _find(self) -> Repeat:
        """The operations of the layers, by their locations."""
        places: list[list[int]] = [[] for _ in range(EXPORTED)]
        for position, op in enumerate(self.ops):
            for index, found in enumerate(places):
                if _is_in(op.location, self.stack.within(index)):
                    found.append(position)
        start, period = (places[0] or [0])[0], len(places[0])
        if period == 0 or list(chain(*places)) != list(range(start, start + EXPORTED * period)):
            raise NotALoop("the operations of the layers do not stand together")
        labels = [label(op) for op in self.ops[start : start + EXPORTED * period]]
        if labels[:-period] != labels[period:]:
            raise NotALoop("the layers are not alike")
        return Repeat(start, period, EXPORTED)

    def _copy(self, index: int) -> list[Operation]:
        start = self.repeat.start + index * self.repeat.period
        return self.ops[start : start + self.repeat.period]

    def _leaves(self) -> Mapping[Operation, FamilyName | int]:
        """Leaf of the last copy -> the family of its weight, or what its constant is more than the layer's number;
        leaves that all layers share are left out.
        """
        found: dict[Operation, FamilyName | int] = {}
        for ops in zip(*map(self._copy, range(EXPORTED)), strict=True):
            for values in zip(*(op.operands for op in ops), strict=True):
                owners = [value.owner for value in values if isinstance(value.owner, Operation)]
                if len(owners) == EXPORTED and is_leaf(owners[-1]):
                    meaning = self._counted(owners)
                    if meaning is not None:
                        found[owners[-1]] = meaning
        return found

    def _counted(self, leaves: Sequence[Operation]) -> FamilyName | int | None:
        if all(isinstance(leaf, nn.ParamOp) for leaf in leaves):
            names = [leaf.weight_name.data for leaf in leaves if isinstance(leaf, nn.ParamOp)]
            if len(set(names)) == 1:
                return None
            family = FamilyName(names[0].replace(f"{self.stack.within(0)}.", f"{self.stack.path}.*.", 1))
            if names != [family.member(index) for index in range(EXPORTED)]:
                raise NotALoop("the names of weights do not count with the layers")
            return family
        numbers = [number for leaf in leaves if (number := index_constant(leaf)) is not None]
        if not numbers or len(set(numbers)) == 1:
            return None  # other constants are part of the labels, which are equal
        offset = numbers[0]
        if numbers != [index + offset for index in range(EXPORTED)]:
            raise NotALoop("an index does not count with the layers")
        return offset

    def _location(self, location: LocationAttr, index: int) -> LocationAttr:
        """The location in layer ``index`` for one in the last layer that was exported."""
        if not isinstance(location, FileLineColLoc) or not _is_in(location, self.stack.within(EXPORTED - 1)):
            return location
        rest = location.filename.data.removeprefix(self.stack.within(EXPORTED - 1))
        return source_location(f"{self.stack.within(index)}{rest}", location.line.data, location.column.data)


def _is_in(location: LocationAttr, layer: str) -> bool:
    """Whether a location is in the layer of that path."""
    name = location.filename.data if isinstance(location, FileLineColLoc) else ""
    return name == layer or name.startswith(f"{layer}.")
