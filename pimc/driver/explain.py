"""``--explain OP``: where an operation landed, and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from pimc.diagnostics import InputError
from pimc.ir.locations import where
from pimc.passes.base import Decision

PLACE = "place"
_DOMAIN, _REASON, _CLASS = "pim.domain", "pim.reason", "pim.class"


@dataclass(frozen=True)
class Explanation:
    """One fact about an operation: its name, source location, entry function, the pass that decided, what it
    decided (for place: the domain), and why.
    """

    operation: str
    location: str
    function: str
    pass_name: str
    decision: str
    reason: str

    def __str__(self) -> str:
        decision = f" -> {self.decision}" if self.decision else ""
        function = f" in @{self.function}" if self.function else ""
        return f"{self.location}: {self.operation}{function}: {self.pass_name}{decision}: {self.reason}"


def explain(module: ModuleOp, pattern: str, decisions: Sequence[Decision] = ()) -> list[Explanation]:
    """What was decided about the operations whose name or source location matches ``pattern``.

    Args:
        module: a module after ``place``.
        pattern: a part of a name or location, ``*`` and ``?`` allowed.
        decisions: what the passes recorded besides.

    Raises:
        InputError: no operation matches.
    """
    everything = [_placement(op) for op in module.walk() if _DOMAIN in op.attributes]
    noted = [
        Explanation(item.op, item.where, "", item.pass_name, "", item.reason)
        for item in decisions
        if item.pass_name != PLACE
    ]
    found = [item for item in (*everything, *noted) if _matches(item, pattern)]
    if not found:
        names = ", ".join(sorted({item.operation for item in everything}))
        raise InputError(f"no placed operation matches '{pattern}'", hint=f"operations: {names or 'none'}")
    return found


def _matches(item: Explanation, pattern: str) -> bool:
    glob = f"*{pattern}*"
    return any(fnmatch.fnmatchcase(text, glob) for text in (item.operation, item.location))


def _placement(op: Operation) -> Explanation:
    return Explanation(
        operation=op.name,
        location=where(op) or "unknown location",
        function=next(_functions(op), "?"),
        pass_name=PLACE,
        decision=f"{_text(op, _CLASS)} in {_text(op, _DOMAIN)}",
        reason=_text(op, _REASON),
    )


def _functions(op: Operation) -> Iterator[str]:
    parent = op.parent_op()
    while parent is not None:
        symbol = parent.get_attr_or_prop("sym_name")
        if isinstance(symbol, StringAttr):
            yield symbol.data
        parent = parent.parent_op()


def _text(op: Operation, key: str) -> str:
    value = op.attributes.get(key)
    return value.data if isinstance(value, StringAttr) else "?"
