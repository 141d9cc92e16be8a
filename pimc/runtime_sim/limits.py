"""What a target and a program may ask of the simulator, checked before anything is allocated.

Single figures of a target have ranges where they are declared (``pimc.targets``); the limits here are the simulator's
own, on what those figures and the program amount to together.  They keep every product of figures within 64 bits, every
native array within :data:`MEMORY_BYTES`, and every instruction short.  docs/simulator.md has the table.
"""

from __future__ import annotations

from pimc.diagnostics import TargetError
from pimc.runtime_sim.engine.arrays import ARRAYS, Figures
from pimc.runtime_sim.engine.records import FLIGHTS, QUEUE, SEMAPHORES
from pimc.runtime_sim.engine.state import AGENT_MASK, PC_MASK
from pimc.targets import Target

#: Address space of all native arrays of a machine, bytes (memory that nothing touches costs nothing).
MEMORY_BYTES = 64 << 30
#: Cores and pseudo-channels of a machine, pseudo-channels of a tile (bits of the race checker's summary of readers).
CORES, PCHS, PCHS_PER_TILE = 1024, 2048, 30
#: Bytes of a core's local memory and of its PIM array: a vector of them is an instruction's longest work.
LOCAL_BYTES, ARRAY_BYTES = 1 << 24, 1 << 26
#: Accumulators of a tensor unit, columns of a DRAM row (bits of a word), banks of a pseudo-channel.
ACCUMULATORS, COLUMNS, BANKS = 1 << 22, 32, 64
#: Bytes of a column: a processing unit's adder tree sums 16 products.
COLUMN_BYTES, LANE_BLOCK = 32, 16
#: Bytes of a global buffer.
BUFFER_BYTES = 1 << 20
_GIB = 1 << 30


def check_target(target: Target) -> None:
    """Raise :class:`TargetError` for a target beyond the engine's fixed sizes."""
    hbm, cores = target.hbm, target.cores
    agents = 3 * cores.count + hbm.pch_count + 1
    limits = [
        ("cores.count", cores.count, CORES),
        ("the number of pseudo-channels", hbm.pch_count, PCHS),
        ("the number of pseudo-channels per core", target.pchs_per_core, PCHS_PER_TILE),
        ("3 * cores.count + the number of pseudo-channels + 1", agents, AGENT_MASK),
        ("the number of semaphores", max(cores.semaphores, hbm.controller.semaphores), SEMAPHORES),
        ("a core's local memory in bytes", target.local_bytes, LOCAL_BYTES),
        ("tcu.rows * tcu.columns", target.tcu.rows * target.tcu.columns, ACCUMULATORS),
        ("the number of columns per row", hbm.columns, COLUMNS),
        ("the number of banks per pseudo-channel", hbm.banks, BANKS),
        ("transfer.queue_depth", target.transfer.queue_depth, min(QUEUE, FLIGHTS)),
        ("memory.instruction.bytes", target.memory("instruction").bytes, 4 * PC_MASK),
        ("memory.stream.bytes", target.memory("stream").bytes, 4 * PC_MASK),
    ]
    if target.pim_unit is not None:
        limits.append(("the PIM array of a core in bytes", target.pim_unit.bytes, ARRAY_BYTES))
    if hbm.pu is not None:
        limits.append(("memory.global_buffer.bytes", target.memory("global_buffer").bytes, BUFFER_BYTES))
    for name, value, limit in limits:
        if value > limit:
            raise TargetError(f"{name} is {value}, the simulator takes up to {limit}")
    if hbm.column_bytes != COLUMN_BYTES:
        raise TargetError(f"hbm.column_bytes is {hbm.column_bytes}, the simulator takes {COLUMN_BYTES}")
    if target.pim_unit is not None and target.pim_unit.lanes % LANE_BLOCK:
        raise TargetError(
            f"the PIM unit has {target.pim_unit.lanes} lanes, the simulator takes multiples of {LANE_BLOCK}"
        )


def check_memory(figures: Figures) -> None:
    """Raise :class:`TargetError` where the native arrays together would take more than :data:`MEMORY_BYTES`."""
    sizes = {array.name: array.bytes(figures) for array in ARRAYS.values()}
    total = sum(sizes.values())
    if total > MEMORY_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise TargetError(
            f"simulating {figures['rows']} rows per bank of {figures['pchs']} pseudo-channels and {figures['cores']} "
            f"cores takes {total / _GIB:.0f} GiB ({largest}: {sizes[largest] / _GIB:.0f} GiB), the simulator takes up "
            f"to {MEMORY_BYTES // _GIB} GiB",
            hint="without data (timing only) and without checks it takes less",
        )
