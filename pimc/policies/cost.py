"""Linear layers and attention where the estimated time is least; everything else as the policy ``paper`` has it."""

from __future__ import annotations

from pimc.backends.lower.choices import places_for
from pimc.ir import nn
from pimc.passes.machine import Machine
from pimc.passes.policy import Placement, Policy, first_choice

_otherwise = first_choice()


def place(op: nn.NnOp, machine: Machine) -> Placement:
    """The domain with the least estimated time."""
    match op:
        case nn.LinearOp():
            n, k = nn.tensor_of(op.weight).get_shape()
            times = {
                "bank_pim": lambda: machine.best_gemv_fs(k, -(-n // machine.cores)),
                "systolic": lambda: machine.gemm_fs(op.rows(), n, k),
                "vector": lambda: machine.vector_gemm_fs(op.rows(), n, k),
            }
        case nn.AttentionOp():
            cache = nn.cache_type(op, op.k)
            rows = nn.tensor_of(op.q).get_shape()[1]
            context = rows if cache is None else cache.get_shape()[1]
            sizes = (rows, op.heads.value.data, op.head_dim.value.data, context)
            times = {
                "sram_pim": lambda: machine.pim_attention_fs(*sizes),
                "systolic": lambda: machine.tcu_attention_fs(*sizes),
                "vector": lambda: machine.vector_attention_fs(*sizes),
            }
        case _:
            return _otherwise(op, machine)
    found = {place.domain: times[place.choice.unit]() for place in places_for(op, machine.target)}
    if not found:
        return _otherwise(op, machine)  # its error
    domain, best = min(found.items(), key=lambda item: item[1])
    text = ", ".join(f"{name} {fs / 1e9:.3f} us" for name, fs in sorted(found.items()))
    return Placement(domain, f"least estimated time ({text})" if best else "no work")


POLICY = Policy("cost", "linear layers and attention where the estimated time is least", place)
