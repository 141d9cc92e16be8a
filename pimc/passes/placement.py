"""Placement policies: functions from an operation to a domain and the reason for it.

A policy is registered under a name (:func:`register_policy`) and named in the pass option
``place{policy=...}``.  It sees the operation, its class and the machine, and names a domain of the target;
None leaves the operation unplaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from xdsl.ir import Operation

from pimc.diagnostics import UsageError
from pimc.ir import nn
from pimc.ir.bank_layout import GemvLayout
from pimc.passes.machine import Machine, require_domain


@dataclass(frozen=True)
class Placement:
    """Where an operation runs, and why."""

    domain: str
    reason: str


Policy: TypeAlias = Callable[[nn.NnOp, Machine], Placement]


def _is_attention(op: Operation) -> bool:
    return isinstance(op, nn.AttentionOp | nn.AttentionFullOp | nn.MatmulOp)


def _common(op: nn.NnOp, machine: Machine) -> Placement:
    """What all policies agree on: everything that is no matrix product."""
    if op.op_class() in ("memory", "layout"):
        return Placement(
            require_domain(machine, "transfer", "data movement"), "moves data only: the transfer unit does it"
        )
    return Placement(
        require_domain(machine, "vector", "elementwise work"),
        "nonlinear: the vector unit has the elementary functions (HPIM section V.A)",
    )


def paper(op: nn.NnOp, machine: Machine) -> Placement:
    """HPIM section VI.B: prefill on the tensor units; decode weights in the banks, attention on the PIM
    units.
    """
    kind = op.op_class()
    if kind not in ("gemm", "gemv"):
        return _common(op, machine)
    if kind == "gemm":
        domain = require_domain(machine, "systolic", "matrix products of several rows")
        return Placement(domain, "gemm: several rows share each weight, so the tensor unit's arithmetic decides")
    if _is_attention(op):
        domain = require_domain(machine, "sram_pim", "attention of one token")
        return Placement(domain, "gemv on computed operands: low latency beside the banks' weight GEMVs")
    domain = require_domain(machine, "bank_pim", "weight GEMVs")
    return Placement(domain, "gemv on stored weights: bound by memory bandwidth, so it runs in the banks")


def sram(op: nn.NnOp, machine: Machine) -> Placement:
    """Nothing in the banks: weights stream to the tensor units (a baseline)."""
    if op.op_class() == "gemv" and not _is_attention(op):
        domain = require_domain(machine, "systolic", "matrix products")
        return Placement(domain, "policy sram: weight products on the tensor unit, weights streamed")
    return paper(op, machine)


def cost(op: nn.NnOp, machine: Machine) -> Placement:
    """The domain with the least estimated time."""
    if isinstance(op, nn.LinearOp):
        times = _linear_times(op, machine)
    elif isinstance(op, nn.AttentionOp):
        times = _attention_times(op, machine)
    else:
        return paper(op, machine)
    domain, best = min(times.items(), key=lambda item: item[1])
    text = ", ".join(f"{name} {fs / 1e9:.3f} us" for name, fs in sorted(times.items()))
    return Placement(domain, f"least estimated time ({text})" if best else "no work")


def _linear_times(op: nn.LinearOp, machine: Machine) -> dict[str, int]:
    n, k = nn.tensor_of(op.weight).get_shape()
    rows = op.rows()
    times = {
        require_domain(machine, "systolic", "matrix products"): machine.gemm_fs(rows, n, k),
    }
    banks = machine.domain("bank_pim")
    if banks is not None and rows == 1:
        times[banks] = best_gemv_fs(machine, k, -(-n // machine.cores))
    return times


def _attention_times(op: nn.AttentionOp, machine: Machine) -> dict[str, int]:
    cache = nn.cache_type(op, op.k)
    m = nn.tensor_of(op.q).get_shape()[1]
    context = m if cache is None else cache.get_shape()[1]
    heads, dim = op.heads.value.data, op.head_dim.value.data
    times = {
        require_domain(machine, "systolic", "attention"): machine.tcu_attention_fs(m, heads, dim, context),
    }
    unit = machine.domain("sram_pim")
    if unit is not None:
        times[unit] = machine.pim_attention_fs(m, heads, dim, context)
    return times


def candidates(machine: Machine, k: int, n_local: int) -> list[GemvLayout]:
    """The layouts of a tile's slice to choose from: one for each cut of K that divides the tile's
    channels.
    """
    geometry = machine.geometry
    splits = [s for s in range(1, geometry.channels + 1) if geometry.channels % s == 0]
    return [GemvLayout(geometry, k, n_local, split) for split in splits]


def best_gemv_fs(machine: Machine, k: int, n_local: int) -> int:
    """Estimated time of a GEMV with its best layout."""
    return min(machine.gemv_fs(layout) for layout in candidates(machine, k, n_local))


POLICIES: MappingProxyType[str, Policy] = MappingProxyType({"paper": paper, "sram": sram, "cost": cost})
"""The policies that come with pimc."""


def find_policy(name: str) -> Policy:
    """The policy ``name``; ``module:function`` names one of the user's own.  UsageError if there is none."""
    if name in POLICIES:
        return POLICIES[name]
    module, separator, function = name.partition(":")
    if separator:
        import importlib

        try:
            found: Policy = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"cannot load the placement policy {name!r}: {error}") from error
        return found
    raise UsageError(
        f"unknown placement policy {name!r}", hint=f"policies are {', '.join(POLICIES)}, or module:function"
    )
