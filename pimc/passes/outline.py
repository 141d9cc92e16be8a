"""``outline``: one function for layers that repeat, called in a loop.

In every function, the largest run of consecutive isomorphic operations (:mod:`pimc.passes.repeats`) becomes
``@<function>_layer(%layer, carried ..., shared ...)`` and ``scf.for %layer``; then the next largest.  The
weights of a layer become families with ``*`` for the layer number (weights whose names do not count with the
layers get names that do), and index constants that grow with it become arithmetic on the index: where layers of two
kinds take turns, the function is of both, and caches count by two.  What was done, or why nothing was, stands in the
function's attribute ``pim.outline``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from typing_extensions import override
from xdsl.dialects import arith, func, scf
from xdsl.dialects.builtin import (
    FileLineColLoc,
    FunctionType,
    IndexType,
    IntegerAttr,
    LocationAttr,
    ModuleOp,
    StringAttr,
)
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from pimc.ir import nn
from pimc.ir.aliases import add_aliases
from pimc.ir.locations import location_text, set_location, source_location
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext
from pimc.passes.families import aliased, family_of
from pimc.passes.repeats import (
    LoopForm,
    NotALoop,
    Repeat,
    find_repeats,
    index_constant,
    is_leaf,
    label,
    loop_form,
)

OUTLINE = "pim.outline"
MAX_CANDIDATES = 512
"""Repeats to try in a function, best first: a bound on the time spent on layers that do not connect alike."""


@dataclass(frozen=True)
class OutlinePass(Pass):
    """Outline repeated layers of at least ``min_ops`` operations."""

    name = "outline"
    produces = Stage.OUTLINED
    min_ops: int = 4

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        for function in [f for f in module.ops if isinstance(f, func.FuncOp) and f.body.blocks]:
            notes: list[str] = []
            number = 0
            while (plan := _find_plan(function, self.min_ops, notes)) is not None:
                add_aliases(module, plan.aliases)
                suffix = f"_{number}" if number else ""
                name = f"{function.sym_name.data}_layer{suffix}"
                Rewriter.insert_op(_outline(function, plan, name), InsertPoint.before(function))
                repeat = plan.form.repeat
                notes.append(f"{repeat.count} layers of {repeat.period} operations in @{name}")
                number += 1
            if notes:
                reason = "; ".join(dict.fromkeys(notes))
                function.attributes[OUTLINE] = StringAttr(reason)
                context.explain(function, reason)


@dataclass
class _Plan:
    """A loop to make: its form, and the layer numbers ``first`` onward."""

    ops: list[Operation]
    form: LoopForm
    first: int
    families: dict[Operation, str]  # leaf of the first copy -> name pattern
    counts: dict[Operation, tuple[int, int]]  # index constant of the first copy -> (factor, offset) of the layer number
    aliases: dict[str, str]  # new name -> weight


def _find_plan(function: func.FuncOp, min_ops: int, notes: list[str]) -> _Plan | None:
    """The best loop in ``function``; reasons against others go to ``notes``."""
    ops = [op for op in function.body.blocks[0].ops if not is_leaf(op)][:-1]
    labels = [label(op) for op in ops]
    best: _Plan | None = None
    reasons: list[str] = []
    for repeat in find_repeats(labels, min_ops, MAX_CANDIDATES):
        if best is not None and (repeat.size, repeat.period) != (
            best.form.repeat.size,
            best.form.repeat.period,
        ):
            break
        try:
            plan = _plan(ops, repeat)
        except NotALoop as reason:
            reasons.append(f"{repeat.count} x {repeat.period} operations kept inline: {reason}")
            continue
        if best is None or len(plan.form.carried) < len(best.form.carried):
            best = plan
    if best is None and not notes:
        notes.extend(reasons[:1] or _near_miss(ops, labels, min_ops))
    return best


def _near_miss(ops: Sequence[Operation], labels: list[object], min_ops: int) -> list[str]:
    """What keeps layers apart that are alike but for their numbers."""
    loose = find_repeats([label(op, attributes=False) for op in ops], min_ops)
    for repeat in loose[:1]:
        for index in range(repeat.start, repeat.stop - repeat.period):
            if labels[index] != labels[index + repeat.period]:
                op = ops[index + repeat.period]
                return [
                    f"{repeat.count} x {repeat.period} operations kept inline: numbers of {op.name} at "
                    f"{location_text(op.location)} differ from the copy before"
                ]
    return []


def _plan(ops: list[Operation], repeat: Repeat) -> _Plan:
    """Check everything about a repeat; NotALoop says what is in the way."""
    form = loop_form(ops, repeat)
    if not form.carried:
        raise NotALoop("nothing is handed from copy to copy")
    slots = _leaf_slots(ops, repeat)
    counts = {leaves[0]: [value for leaf in leaves if (value := index_constant(leaf)) is not None] for leaves in slots}
    varying = {leaf: values for leaf, values in counts.items() if len(set(values)) > 1}
    names = _weight_names(slots)
    families = {leaf: family_of(texts) for leaf, texts in names.items()}
    numbers = [family.indices for family in families.values() if family is not None and _consecutive(family.indices)]
    if any(_consecutive(values) for values in varying.values()):  # layers of caches cannot be renamed, weights can
        numbers = [tuple(values) for values in varying.values() if _consecutive(values)]
    first = min(numbers, default=(0,))[0]
    indices = tuple(range(first, first + repeat.count))
    aliases: dict[str, str] = {}
    for leaf, family in families.items():
        if family is not None and family.indices == indices:
            continue
        families[leaf], more = aliased(names[leaf], first)
        aliases |= more
    factors = {leaf: values[1] - values[0] for leaf, values in varying.items()}
    for leaf, values in varying.items():
        if any(b - a != factors[leaf] for a, b in pairwise(values)):
            raise NotALoop("an index constant does not grow evenly with the layers")
    numbered = {leaf: (factors[leaf], values[0] - factors[leaf] * first) for leaf, values in varying.items()}
    _check_dominance(ops, form)
    patterns = {leaf: family.pattern for leaf, family in families.items() if family is not None}
    return _Plan(ops, form, first, patterns, numbered, aliases)


def _weight_names(slots: list[list[Operation]]) -> dict[Operation, list[str]]:
    """For every weight of the first copy that is another in other copies: its name in each copy."""
    names = {leaves[0]: [leaf.weight_name.data for leaf in leaves if isinstance(leaf, nn.ParamOp)] for leaves in slots}
    return {leaf: texts for leaf, texts in names.items() if len(set(texts)) > 1}


def _consecutive(indices: Sequence[int]) -> bool:
    return all(b == a + 1 for a, b in pairwise(indices))


def _leaf_slots(ops: list[Operation], repeat: Repeat) -> list[list[Operation]]:
    """For every operand slot that a leaf fills: that leaf in every copy."""
    found: list[list[Operation]] = []
    for offset in range(repeat.period):
        for slot, value in enumerate(ops[repeat.start + offset].operands):
            if isinstance(value.owner, Operation) and is_leaf(value.owner):
                owners = [
                    ops[repeat.start + copy * repeat.period + offset].operands[slot].owner
                    for copy in range(repeat.count)
                ]
                found.append([owner for owner in owners if isinstance(owner, Operation)])
    return found


def _check_dominance(ops: list[Operation], form: LoopForm) -> None:
    """What enters the loop is defined before it."""
    for value in (*form.carried.values(), *form.invariant):
        owner = value.owner
        if isinstance(owner, Operation) and owner in ops and ops.index(owner) >= form.repeat.start:
            raise NotALoop("a value that all copies share is made inside the first")


def _outline(function: func.FuncOp, plan: _Plan, name: str) -> func.FuncOp:
    """Build the layer function and replace the copies by a loop; returns the function."""
    repeat, form = plan.form.repeat, plan.form
    layer_function = _build_layer(plan, name)
    first = plan.ops[repeat.start]
    index = IndexType()
    bounds = [arith.ConstantOp(IntegerAttr(value, index)) for value in (plan.first, plan.first + repeat.count, 1)]
    inits = list(form.carried.values())
    body = Block(arg_types=[index, *(value.type for value in inits)])
    call = func.CallOp(name, [*body.args, *form.invariant], [value.type for value in inits])
    body.add_ops([call, scf.YieldOp(*call.results)])
    loop = scf.ForOp(bounds[0].result, bounds[1].result, bounds[2].result, inits, Region(body))
    for new in (*bounds, loop):
        set_location(new, layer_function.location)
    Rewriter.insert_op([*bounds, loop], InsertPoint.before(first))
    last = repeat.stop - repeat.period
    for source, result in zip(form.carried, loop.results, strict=True):
        old = plan.ops[last + source.op].results[source.result]
        old.replace_all_uses_with(result)
    block = function.body.blocks[0]
    for op in reversed(plan.ops[repeat.start : repeat.stop]):
        block.detach_op(op)
        op.erase(safe_erase=False)
    for op in reversed(list(block.ops)):
        if is_leaf(op) and not any(result.uses.get_length() for result in op.results):
            Rewriter.erase_op(op)
    return layer_function


def _build_layer(plan: _Plan, name: str) -> func.FuncOp:
    """The function of one layer: a copy of the first one, on arguments."""
    repeat, form = plan.form.repeat, plan.form
    index = IndexType()
    inputs = [index, *(v.type for v in form.carried.values()), *(v.type for v in form.invariant)]
    block = Block(arg_types=inputs)
    layer, *rest = block.args
    mapping: dict[SSAValue, SSAValue] = dict(zip((*form.carried.values(), *form.invariant), rest, strict=True))
    first = plan.ops[repeat.start : repeat.start + repeat.period]
    second = plan.ops[repeat.start + repeat.period : repeat.start + 2 * repeat.period]
    for op, following in zip(first, second, strict=True):
        for value in op.operands:
            if isinstance(value.owner, Operation) and is_leaf(value.owner) and value not in mapping:
                for new in _layer_leaf(value.owner, plan, layer):
                    set_location(new, _family_location(op.location, following.location))
                    block.add_op(new)
                    mapping[value] = new.results[0]
                if value not in mapping:
                    mapping[value] = layer
        clone = op.clone(value_mapper=mapping)
        clone.location = _family_location(op.location, following.location)
        block.add_op(clone)
    outputs = [mapping[first[source.op].results[source.result]] for source in form.carried]
    returned = func.ReturnOp(*outputs)
    block.add_op(returned)
    type_ = FunctionType.from_lists(inputs, [value.type for value in outputs])
    function = func.FuncOp(name, type_, Region(block), visibility="private")
    function.location = _family_location(first[0].location, second[0].location)
    returned.location = function.location
    return function


def _layer_leaf(leaf: Operation, plan: _Plan, layer: SSAValue) -> list[Operation]:
    """The operations that make a leaf's value for layer ``layer``; none where the layer is the value."""
    if leaf in plan.families and isinstance(leaf, nn.ParamOp):
        return [nn.ParamOp(plan.families[leaf], nn.tensor_of(leaf.result), layer)]
    if leaf not in plan.counts:
        return [leaf.clone()]
    made: list[Operation] = []
    for neutral, number, operation in zip((1, 0), plan.counts[leaf], (arith.MuliOp, arith.AddiOp), strict=True):
        if number != neutral:
            constant = arith.ConstantOp(IntegerAttr(number, IndexType()))
            made += [constant, operation(layer, constant)]
            layer = made[-1].results[0]
    return made


def _family_location(location: LocationAttr, following: LocationAttr) -> LocationAttr:
    """The location of a layer's operation: its family where the next layer's differs in one number."""
    if not isinstance(location, FileLineColLoc) or not isinstance(following, FileLineColLoc):
        return location
    family = family_of([location.filename.data, following.filename.data])
    if family is None:
        return location
    return source_location(family.pattern, location.line.data, location.column.data)
