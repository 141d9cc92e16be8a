"""Repeated layers in a straight-line program: which consecutive runs of operations are isomorphic, and how
they connect.

Works on structure, not on names.  Operations get labels (kind, attributes, types, kinds of operands); a
*repeat* is a run of operations followed by copies of itself with equal labels; a repeat is a loop if, in
addition, every copy uses the same outer values, the previous copy's results in the same places, and weights
whose names differ in one number.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, IntegerAttr
from xdsl.ir import Attribute, Operation, SSAValue

from pimc.ir import nn


@dataclass(frozen=True)
class Repeat:
    """``count`` copies of ``period`` operations from operation ``start`` on."""

    start: int
    period: int
    count: int

    @property
    def size(self) -> int:
        """Operations covered."""
        return self.period * self.count

    @property
    def stop(self) -> int:
        """Index behind the last copy."""
        return self.start + self.size


def is_leaf(op: Operation) -> bool:
    """Whether ``op`` brings a value in from nowhere: a weight, a constant.  It belongs to its users."""
    return isinstance(op, nn.ParamOp | nn.ConstantOp | arith.ConstantOp) and not op.operands


def index_constant(op: Operation) -> int | None:
    """The value of an ``arith.constant`` of type index; None for any other operation."""
    if isinstance(op, arith.ConstantOp) and isinstance(op.result.type, IndexType):
        value = op.value
        return value.value.data if isinstance(value, IntegerAttr) else None
    return None


def label(op: Operation, attributes: bool = True) -> Hashable:
    """What must be equal in all copies; ``attributes`` false leaves the numbers out (to say why not)."""
    if op.regions:
        return id(op)
    properties = frozenset(op.properties.items()) if attributes else None
    operands = tuple(_operand_label(value, attributes) for value in op.operands)
    return op.name, properties, operands, tuple(op.result_types)


def _operand_label(value: SSAValue, attributes: bool) -> Hashable:
    owner = value.owner
    if isinstance(owner, Operation) and is_leaf(owner):
        constant: Attribute | None = None
        if index_constant(owner) is None and not isinstance(owner, nn.ParamOp):
            constant = owner.properties.get("value")
        return owner.name, value.type, constant if attributes else None
    return "value", value.type


#: Operations of the longest layer that is looked for: the time that takes grows with the graph, not with its square.
MAX_PERIOD = 4096
#: Repeats that are given, best first: a chain of like operations has as many as the square of its length.
MAX_REPEATS = 512


def find_repeats(labels: Sequence[Hashable], least: int = 1, limit: int = MAX_REPEATS) -> list[Repeat]:
    """The best repeats of at least two copies and their rotations: largest first, then shortest period.

    Args:
        labels: of the operations in order.
        least: operations of the shortest copy.
        limit: so many at most.
    """
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(item, len(numbers)) for item in labels], dtype=np.int64)
    return heapq.nsmallest(limit, _repeats(codes, least, limit), key=lambda r: (-r.size, r.period, r.start))


def _repeats(codes: np.ndarray[tuple[int], np.dtype[np.int64]], least: int, limit: int) -> Iterator[Repeat]:
    """Those among which are the best ``limit``."""
    for period in range(least, min(len(codes) // 2, MAX_PERIOD) + 1):
        for first, last in _runs(codes[:-period] == codes[period:], period):
            stop = last + period  # operations first .. stop are periodic
            starts = range(first, min(first + period, stop - 2 * period + 1))
            yield from (Repeat(start, period, (stop - start) // period) for start in starts[:limit])


def _runs(equal: np.ndarray[tuple[int], np.dtype[np.bool_]], least: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of at least ``least`` in which ``equal`` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], equal, [False])).astype(np.int8)))
    firsts, lasts = edges[::2], edges[1::2]
    for index in np.flatnonzero(lasts - firsts >= least):
        yield int(firsts[index]), int(lasts[index])


class NotALoop(Exception):  # noqa: N818 - an answer, not an error
    """Why a repeat cannot be outlined."""


@dataclass(frozen=True)
class Result:
    """Result ``result`` of operation ``op`` of a copy (counted from the copy's first)."""

    op: int
    result: int


@dataclass
class LoopForm:
    """How the copies of a repeat connect: what is carried from copy to copy, and what all share."""

    repeat: Repeat
    carried: dict[Result, SSAValue]  # -> the value that the first copy uses instead
    invariant: list[SSAValue]


def loop_form(ops: Sequence[Operation], repeat: Repeat) -> LoopForm:
    """The loop form of a repeat; NotALoop with the reason if the copies do not connect alike."""
    place = {op: index for index, op in enumerate(ops)}
    form = LoopForm(repeat, {}, [])
    for offset in range(repeat.period):
        for slot in range(len(ops[repeat.start + offset].operands)):
            values = [ops[repeat.start + copy * repeat.period + offset].operands[slot] for copy in range(repeat.count)]
            _classify(values, place, form)
    _check_results(ops, place, form)
    return form


def _classify(values: list[SSAValue], place: dict[Operation, int], form: LoopForm) -> None:
    """Sort one operand slot of all copies into inner, carried or invariant."""
    owner = values[0].owner
    if isinstance(owner, Operation) and is_leaf(owner):
        return
    where = [_position(value, place, form.repeat) for value in values]
    if all(copy == index and rest == where[0][1] for index, (copy, rest) in enumerate(where)):
        return
    if all(copy == index and rest == where[1][1] for index, (copy, rest) in enumerate(where[1:])):
        source = where[1][1]
        if where[0][0] is not None or source is None:
            raise NotALoop("the first copy uses a value of its own where later ones use the copy before")
        if form.carried.setdefault(source, values[0]) is not values[0]:
            raise NotALoop("the first copy enters with two values where later ones have one")
        return
    if any(value is not values[0] for value in values) or where[0][0] is not None:
        raise NotALoop("the copies use different outer values, or values of a copy further back")
    if values[0] not in form.invariant:
        form.invariant.append(values[0])


def _position(value: SSAValue, place: dict[Operation, int], repeat: Repeat) -> tuple[int | None, Result | None]:
    """(copy, result in the copy) that defines ``value``; (None, None) outside."""
    owner = value.owner
    index = place.get(owner) if isinstance(owner, Operation) else None
    if index is None or not isinstance(owner, Operation) or not repeat.start <= index < repeat.stop:
        return None, None
    copy, offset = divmod(index - repeat.start, repeat.period)
    return copy, Result(offset, owner.results.index(value))


def _check_results(ops: Sequence[Operation], place: dict[Operation, int], form: LoopForm) -> None:
    """Behind the loop only the last copy's carried results may be used."""
    repeat = form.repeat
    for index in range(repeat.start, repeat.stop):
        copy, offset = divmod(index - repeat.start, repeat.period)
        for number, result in enumerate(ops[index].results):
            outside = any(not repeat.start <= place.get(use.operation, -1) < repeat.stop for use in result.uses)
            if outside and (copy != repeat.count - 1 or Result(offset, number) not in form.carried):
                raise NotALoop(f"a result of {ops[index].name} inside the copies is used behind them")
