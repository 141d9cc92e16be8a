"""Source locations: every operation says which part of the model it came from, through all passes.

xDSL parses, prints and clones locations but loses them in rewrites.  Here are the missing pieces: rewrites
and builders that hand the location on, the fusion of several locations, and a check that none is lost.

A location names the module path in the model and, where known, a line and column:
``loc("model.layers.0.mlp":12:0)``. What came from several operations has ``loc(fused["a":0:0, "b":0:0])``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import override
from xdsl.builder import Builder
from xdsl.dialects.builtin import (
    ArrayAttr,
    CallSiteLoc,
    FileLineColLoc,
    FusedLoc,
    IntAttr,
    LocationAttr,
    ModuleOp,
    NameLoc,
    NoneAttr,
    StringAttr,
    UnknownLoc,
)
from xdsl.ir import Attribute, Operation
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern
from xdsl.rewriter import InsertPoint

from pimc.diagnostics import InternalError

OpT = TypeVar("OpT", bound=Operation)

LOCATED_DIALECTS = frozenset({"nn", "pim", "sram", "hbm"})
"""Dialects whose operations must have a location."""


def source_location(name: str, line: int = 0, column: int = 0) -> FileLineColLoc:
    """A location in the model: module path or file name, line, column (0 where there is none)."""
    return FileLineColLoc(StringAttr(name), IntAttr(line), IntAttr(column))


def is_unknown(location: Attribute) -> bool:
    """Whether a location says nothing."""
    return isinstance(location, UnknownLoc | NoneAttr)


def fuse_locations(locations: Iterable[LocationAttr]) -> LocationAttr:
    """One location for what came from several: known ones, each once, in order; unknown if there is none."""
    parts: dict[LocationAttr, None] = {}
    for location in locations:
        if isinstance(location, FusedLoc) and isinstance(location.locations, Iterable):
            parts.update(dict.fromkeys(location.locations))
        elif not is_unknown(location):
            parts[location] = None
    if not parts:
        return UnknownLoc()
    if len(parts) == 1:
        return next(iter(parts))
    return FusedLoc(ArrayAttr(parts), NoneAttr())


def set_location(op: OpT, location: LocationAttr) -> OpT:
    """Give ``op`` and the operations nested in it this location where they have none; returns ``op``."""
    for inner in op.walk():
        if is_unknown(inner.location):
            inner.location = location
    return op


def with_location(new_op: OpT, from_op: Operation | Iterable[Operation]) -> OpT:
    """Give ``new_op`` the location of the operation(s) it replaces; one it already has stays.  Returns
    ``new_op``.
    """
    sources = [from_op] if isinstance(from_op, Operation) else from_op
    return set_location(new_op, fuse_locations(source.location for source in sources))


def location_text(location: Attribute) -> str:
    """A location for messages: ``model.layers.0.mlp:12``; several are joined by commas."""
    if isinstance(location, FileLineColLoc):
        name, line, column = location.filename.data, location.line.data, location.column.data
        if line == 0:
            return name
        return f"{name}:{line}:{column}" if column else f"{name}:{line}"
    if isinstance(location, NameLoc):
        return location.desc.data
    if isinstance(location, FusedLoc) and isinstance(location.locations, Iterable):
        return ", ".join(location_text(part) for part in location.locations)
    if isinstance(location, CallSiteLoc):
        return f"{location_text(location.callee)} called at {location_text(location.caller)}"
    return "unknown"


def where(op: Operation) -> str:
    """Where ``op`` came from, for messages; the nearest operation around it that knows."""
    holder: Operation | None = op
    while holder is not None:
        if not is_unknown(holder.location):
            return location_text(holder.location)
        holder = holder.parent_op()
    return "unknown"


@contextmanager
def inheriting(rewriter: Builder, source: Operation | LocationAttr) -> Iterator[None]:
    """While this is open, operations that ``rewriter`` inserts without a location get that of ``source``."""
    location: LocationAttr = source.location if isinstance(source, Operation) else source

    def give(op: Operation) -> None:
        set_location(op, location)

    rewriter.operation_insertion_handler.insert(0, give)
    try:
        yield
    finally:
        rewriter.operation_insertion_handler.remove(give)


def builder_at(point: InsertPoint, source: Operation | LocationAttr) -> Builder:
    """A builder whose operations get the location of ``source`` unless they have one."""
    location: LocationAttr = source.location if isinstance(source, Operation) else source
    builder = Builder(point)

    def give(op: Operation) -> None:
        set_location(op, location)

    builder.operation_insertion_handler.append(give)
    return builder


@dataclass(frozen=True)
class LocatedPattern(RewritePattern):
    """A rewrite pattern whose new operations inherit the location of the matched operation."""

    pattern: RewritePattern

    @override
    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        with inheriting(rewriter, op):
            self.pattern.match_and_rewrite(op, rewriter)


def rewrite_module(module: ModuleOp, pattern: RewritePattern, *, apply_recursively: bool = True) -> bool:
    """Apply ``pattern`` greedily to the module with locations handed on; whether anything changed."""
    walker = PatternRewriteWalker(LocatedPattern(pattern), apply_recursively=apply_recursively)
    return walker.rewrite_module(module)


def missing_locations(module: Operation) -> list[Operation]:
    """Operations of our dialects that have no location."""
    return [op for op in module.walk() if op.name.partition(".")[0] in LOCATED_DIALECTS and is_unknown(op.location)]


def check_locations(module: Operation) -> None:
    """Raise InternalError if an operation of our dialects has no location."""
    lost = missing_locations(module)
    if lost:
        raise InternalError(
            f"{len(lost)} operation(s) have no source location, the first is {lost[0].name}",
            hint="use pimc.ir.locations: with_location, rewrite_module or builder_at",
            where=where(lost[0]),
        )
