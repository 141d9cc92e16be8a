"""Policies: where operations run, and the options of the passes that go with it; a bundle under one name.

``pimc compile --policy NAME`` takes one of those in :mod:`pimc.policies` (a file each), of an installed package
(entry-point group ``pimc.policies``), or of a plug-in file (``--plugin``): an instance of :class:`Policy` in a module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from xdsl.utils.arg_spec import ParameterType

from pimc.backends.lower.choices import choices_for, places_for, refusal
from pimc.ir import nn
from pimc.passes.machine import Machine


@dataclass(frozen=True)
class Placement:
    """The domain of the target where an operation runs, and why."""

    domain: str
    reason: str


Placer: TypeAlias = Callable[[nn.NnOp, Machine], Placement]
"""Where an operation runs; ``place`` refuses a domain that cannot do it."""


@dataclass(frozen=True)
class Policy:
    """Where operations run, and options of passes.

    ``summary`` is a line for lists; ``options`` are defaults of the options of passes, by pass and by option as a
    pipeline's text has them (``{"partition": {"rounds": "paper"}}``): what a pipeline states itself wins.
    """

    name: str
    summary: str
    place: Placer
    options: Mapping[str, Mapping[str, ParameterType]] = field(default_factory=lambda: MappingProxyType({}))


#: Why a kind of unit does what it does best.
_WHY = {
    "bank_pim": "gemv on stored weights: bound by memory bandwidth, so it runs in the banks",
    "sram_pim": "gemv on computed operands: low latency beside the banks' weight GEMVs",
    "systolic": "matrix product: the tensor unit's arithmetic decides",
    "transfer": "reads or writes rows in DRAM: the transfer unit moves them",
}
_GEMM = "gemm: several rows share each weight, so the tensor unit's arithmetic decides"
_MOVES = "moves data within local memory"
_NONLINEAR = "nonlinear: the vector unit has the elementary functions (HPIM section V.A)"
_MATRIX = frozenset({"gemm", "gemv"})


def why(op: nn.NnOp, kind: str) -> str:
    """Why an operation runs on a kind of unit that is the first choice for it."""
    if kind == "systolic" and isinstance(op, nn.LinearOp | nn.AttentionOp) and op.op_class() == "gemm":
        return _GEMM
    if kind == "vector" and op.op_class() in ("memory", "layout"):
        return _MOVES
    if kind == "vector" and op.op_class() in _MATRIX:
        return "the vector unit does it: products and sums of rows"
    return _WHY.get(kind, _NONLINEAR)


def first_choice(*without: str, policy: str = "") -> Placer:
    """Every operation on the first unit of its choices (HPIM section VI.B) that the target has and that can do it.

    Args:
        without: kinds of units that get no work.
        policy: the name for the reason, where that makes a difference.
    """

    def place(op: nn.NnOp, machine: Machine) -> Placement:
        places = places_for(op, machine.target)
        for found in places:
            if found.choice.unit not in without:
                return Placement(found.domain, _reason(op, machine, found.choice.unit, without, policy))
        raise refusal(op, machine.target, f"policy {policy} gives no work to {', '.join(without)}" if places else "")

    return place


def _reason(op: nn.NnOp, machine: Machine, kind: str, without: tuple[str, ...], policy: str) -> str:
    """Why an operation runs on ``kind``, and what kept it from a better choice."""
    before: list[str] = []
    for choice in choices_for(op):
        if choice.unit == kind:
            break
        if choice.refusal(op) is None:
            before.append(choice.unit)
    excluded = [unit for unit in before if unit in without]
    lacking = [unit for unit in before if unit not in without and machine.domain(unit) is None]
    notes = [f"policy {policy} gives no work to {', '.join(excluded)}"] if excluded else []
    notes += [f"the target has no domain of kind {', '.join(lacking)}"] if lacking else []
    return "; ".join((why(op, kind), *notes))
