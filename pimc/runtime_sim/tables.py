"""Tables by instruction number that the engine looks up, from the ISA tables and a target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pimc.isa.hbm import HBM_ISA
from pimc.isa.spec import Instruction
from pimc.isa.sram import SRAM_ISA
from pimc.isa.sram_rows import is_rows_form, moving_operands
from pimc.runtime_sim.engine.array_checks import (
    ARRAY_ADD,
    ARRAY_CLEAR,
    ARRAY_LOAD,
    NOTHING,
    TENSOR_ADD,
    TENSOR_CLEAR,
    TENSOR_LOAD,
    TENSOR_READ,
)
from pimc.runtime_sim.engine.state import UNITS
from pimc.runtime_sim.instruction_classes import CLASSES, class_of, element_bytes, register_mask
from pimc.targets import Target

Int64Array = NDArray[np.int64]

_UNIT_CHECKS = {
    "pimld": ARRAY_LOAD,
    "pimmv_a": ARRAY_ADD,
    "pimmv_aw": ARRAY_ADD,
    "pimmv_c": ARRAY_CLEAR,
    "pimmv_cw": ARRAY_CLEAR,
    "tmm_nk": TENSOR_ADD,
    "tmm_kn": TENSOR_ADD,
    "tmmc_nk": TENSOR_CLEAR,
    "tmmc_kn": TENSOR_CLEAR,
    "twb": TENSOR_READ,
    "twb_f": TENSOR_READ,
    "tld_f": TENSOR_LOAD,
}
_ALONE, _SHARED, _BANKS, _MASKED = 1, 2, 3, 4
_COMMAND_CLASSES = {
    "wait": _SHARED,
    "sig": _SHARED,
    "wrgb": _SHARED | _MASKED,
    "rdres": _SHARED | _MASKED,
    "mac": _ALONE | _MASKED,
    "pre": _ALONE | _MASKED,
    "act": _BANKS | _MASKED,
    "rd": _BANKS | _MASKED,
    "wr": _BANKS | _MASKED,
    "ref": _BANKS | _MASKED,
}


def _wide(instruction: Instruction) -> int:
    """Element sizes (source << 4 | destination), for messages bit 1: multicast, bit 0: strided."""
    if instruction.unit == "noc":
        multicast = "group_base" in instruction.config
        strided = "message_rows" in instruction.config
        return 2 * multicast + strided
    source, target = element_bytes(instruction)
    return source << 4 | target


def _rows(instruction: Instruction) -> int:
    """Which operands of a many-rows form have rows: bit 0 dst, 1 a, 2 b or s; 0 for other instructions."""
    if not is_rows_form(instruction):
        return 0
    names = [operand.name for operand in instruction.operands]
    return sum(1 << names.index(name) for name in moving_operands(instruction))


def _array(values: Sequence[int]) -> Int64Array:
    return np.array(values, np.int64)


def instruction_tables(target: Target) -> dict[str, Int64Array]:
    """The lookup tables, by the name of their address in the machine record (without ``_at``)."""
    instructions = SRAM_ISA.instructions
    models = [latency.name for latency in target.latencies]
    return {
        "op_class": _array([CLASSES.index(class_of(i)) for i in instructions]),
        "op_unit": _array([UNITS.index(i.unit) for i in instructions]),
        "op_latency": _array(
            # An instruction of a unit that the target lacks is refused before it could run.
            [models.index(target.latency(i.latency).name) if i.unit in target.unit_names else 0 for i in instructions]
        ),
        "op_wide": _array([_wide(i) for i in instructions]),
        "op_registers": _array([register_mask(i) for i in instructions]),
        "op_rows": _array([_rows(i) for i in instructions]),
        "op_units": _array([_UNIT_CHECKS.get(i.semantics, NOTHING) for i in instructions]),
        "latency_rate": _array([latency.rate for latency in target.latencies]),
        "latency_pipeline": _array([latency.pipeline for latency in target.latencies]),
        "command_class": _array(
            [
                _COMMAND_CLASSES.get(i.semantics, _ALONE) if i.unit == "control" else _COMMAND_CLASSES[i.semantics]
                for i in HBM_ISA.instructions
            ]
        ),
    }
