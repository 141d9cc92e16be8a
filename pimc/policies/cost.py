"""Matrix products where the estimated time is least; everything else as the policy ``paper`` has it."""

from __future__ import annotations

from math import prod

from pimc.backends.lower.choices import places_for
from pimc.ir import nn
from pimc.ir.nn.base import shape_of
from pimc.passes.machine import Machine
from pimc.passes.policy import Placement, Policy, first_choice

_otherwise = first_choice()


def place(op: nn.NnOp, machine: Machine) -> Placement:
    """The domain with the least estimated time."""
    places = places_for(op, machine.target)
    times = {found.domain: _time(op, machine, found.choice.unit) for found in places}
    found = {domain: fs for domain, fs in times.items() if fs is not None}
    if len(found) < max(1, len(times)):
        return _otherwise(op, machine)
    domain, best = min(found.items(), key=lambda item: item[1])
    text = ", ".join(f"{name} {fs / 1e9:.3f} us" for name, fs in sorted(found.items()))
    return Placement(domain, f"least estimated time ({text})" if best else "no work")


def _time(op: nn.NnOp, machine: Machine, kind: str) -> int | None:
    """Femtoseconds on a kind of unit; None for what is no matrix product."""
    match op:
        case nn.LinearOp():
            n, k = shape_of(op.weight)
            if kind == "bank_pim":
                return machine.best_gemv_fs(k, -(-n // machine.cores))
            return machine.gemm_fs(op.rows(), n, k, kind)
        case nn.MatmulOp():
            *batch, rows, columns = shape_of(op.result)
            return prod(batch) * machine.product_fs(kind, rows, columns, shape_of(op.a)[-1])
        case nn.AttentionOp():
            cache, rows = nn.cache_type(op, op.k), shape_of(op.q)[1]
            context = rows if cache is None else cache.get_shape()[1]
            return machine.attention_fs(kind, rows, op.heads.value.data, op.head_dim.value.data, context)
        case nn.AttentionFullOp():
            sequences, rows = shape_of(op.q)[:2]
            heads, dim = sequences * op.heads.value.data, op.head_dim.value.data
            return machine.attention_fs(kind, rows, heads, dim, shape_of(op.k)[1])
        case _:
            return None


POLICY = Policy("cost", "matrix products and attention where the estimated time is least", place)
