"""Uninitialised reads and races: epochs of elements of local memory, DRAM rows and controller registers.

Every agent (core, controller, and the DMA and NoC engine of every core) has a vector clock.  An epoch is the agent, its
own clock and the pc of an access, in 64 bits.  An access races with an earlier one if its agent's vector clock does not
cover the earlier epoch.  A core and its own DMA engine never race (the scoreboard orders them); the core learns the
engine's clock when it touches what the engine touched.
"""

from __future__ import annotations

from pimc.runtime_sim.engine.errors import (
    CLOCKS,
    PLACE_HBM,
    PLACE_LOCAL,
    RACE,
    RESOURCES,
    STREAM_CORE,
    STREAM_PCH,
    UNINITIALISED,
    fail,
)
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.records import BLOCK_SHIFT, CLOCK_LIMIT
from pimc.runtime_sim.engine.state import (
    AGENT_MASK,
    CLOCK_SHIFT,
    PC_SHIFT,
    Int32Array,
    Record,
    clock_place,
    view_i64,
    view_u32,
)


@inline
def epoch_of(agent: int, clock: int, pc: int) -> int:
    """Pack an epoch."""
    return clock << CLOCK_SHIFT | pc << PC_SHIFT | agent


@jit
def join(target: Int32Array, source: Int32Array) -> None:
    """Elementwise maximum of vector clocks."""
    for i in range(target.size):
        target[i] = max(target[i], source[i])


@jit
def copy_clock(target: Int32Array, source: Int32Array) -> None:
    """Copy a vector clock."""
    for i in range(target.size):
        target[i] = source[i]


@jit
def tick(m: Record, clock: Int32Array, entry: int, agent: int, pc: int) -> None:
    """Advance an entry of an agent's clock; an epoch has a limited number of bits for it."""
    clock[entry] += 1
    if clock[entry] >= CLOCK_LIMIT:
        stream = STREAM_PCH if m.first_pch <= agent < m.first_dma else STREAM_CORE
        fail(m, RESOURCES, stream, agent, pc, CLOCKS, CLOCK_LIMIT)


@jit
def fail_race(m: Record, agent: int, pc: int, other: int, place: int, address: int) -> None:
    """Note a race between ``agent`` at ``pc`` and the epoch ``other``."""
    stream = STREAM_PCH if m.first_pch <= agent < m.first_dma else STREAM_CORE
    if m.error == 0:
        m.error_other = other
        m.error_address = address
    fail(m, RACE, stream, agent, pc, place, address)


@inline
def ordered(clock: Int32Array, epoch: int, partner: int) -> bool:
    """Whether an epoch happened before the owner of ``clock``; ``partner`` is ordered by the scoreboard."""
    agent = epoch & AGENT_MASK
    when = epoch >> CLOCK_SHIFT
    if when <= clock[agent]:
        return True
    if agent == partner:
        clock[agent] = when
        return True
    return False


@jit
def _unclear(agent: int, partner: int, clock: Int32Array, epochs_at: int, first: int, end: int) -> bool:
    """Whether writes of elements [first, end) need a look at each: one by a third agent, or an element never written.

    Learns the partner's newest clock among them (the fast path of :func:`ordered`, which the compiler vectorises).
    """
    writes = view_i64(epochs_at, end)
    others = 0
    newest = 0
    for e in range(first, end):
        x = writes[e]
        a = x & AGENT_MASK
        theirs = a == partner
        others |= 1 if x == 0 or (a != agent and not theirs) else 0
        newest = max(newest, x >> CLOCK_SHIFT if theirs else 0)
    if partner >= 0 and newest > clock[partner]:
        clock[partner] = newest
    return others != 0


@jit
def read_elements(
    m: Record, tile: int, slot: int, agent: int, partner: int, clock: Int32Array, pc: int, first: int, end: int
) -> None:
    """Check and note a read of elements [first, end) of a tile's local memory by ``agent`` (reader slot ``slot``)."""
    writes_at = m.local_write_at + tile * m.elements * 8
    reads = view_i64(m.local_read_at + (tile * m.slots + slot) * m.elements * 8, m.elements)
    flags = view_u32(m.local_flags_at + 4 * tile * m.blocks, m.blocks)
    epoch = epoch_of(agent, clock[agent], pc)
    if _unclear(agent, partner, clock, writes_at, first, end):
        writes = view_i64(writes_at, m.elements)
        for e in range(first, end):
            x = writes[e]
            if x == 0:
                stream = STREAM_PCH if m.first_pch <= agent < m.first_dma else STREAM_CORE
                fail(m, UNINITIALISED, stream, agent, pc, PLACE_LOCAL, 2 * e)
                return
            if x & AGENT_MASK != agent and not ordered(clock, x, partner):
                fail_race(m, agent, pc, x, PLACE_LOCAL, 2 * e)
                return
    for e in range(first, end):
        reads[e] = epoch
    bit = 1 << slot
    for block in range(first >> BLOCK_SHIFT, ((end - 1) >> BLOCK_SHIFT) + 1):
        flags[block] |= bit


@jit
def _check_readers(
    m: Record,
    tile: int,
    slot: int,
    agent: int,
    partner: int,
    clock: Int32Array,
    pc: int,
    first: int,
    end: int,
    bits: int,
) -> None:
    """Check a write against the noted readers of the other slots in ``bits``."""
    for other in range(m.slots):
        if other == slot or not bits >> other & 1:
            continue
        reads_at = m.local_read_at + (tile * m.slots + other) * m.elements * 8
        reads = view_i64(reads_at, m.elements)
        if partner >= 0 and other < 2:  # the slots of a core and its transfers: ordered, but the clock is news
            newest = 0
            for e in range(first, end):
                newest = max(newest, reads[e] >> CLOCK_SHIFT)
            clock[partner] = max(clock[partner], newest)
            continue
        for e in range(first, end):
            x = reads[e]
            if x != 0 and x & AGENT_MASK != agent and not ordered(clock, x, partner):
                fail_race(m, agent, pc, x, PLACE_LOCAL, 2 * e)
                return


@jit
def write_elements(
    m: Record, tile: int, slot: int, agent: int, partner: int, clock: Int32Array, pc: int, first: int, end: int
) -> None:
    """Check and note a write of elements [first, end) by ``agent`` (``slot`` -1: none of the tile's readers)."""
    writes_at = m.local_write_at + tile * m.elements * 8
    writes = view_i64(writes_at, m.elements)
    flags = view_u32(m.local_flags_at + 4 * tile * m.blocks, m.blocks)
    epoch = epoch_of(agent, clock[agent], pc)
    if _unclear(agent, partner, clock, writes_at, first, end):
        for e in range(first, end):
            x = writes[e]
            if x != 0 and x & AGENT_MASK != agent and not ordered(clock, x, partner):
                fail_race(m, agent, pc, x, PLACE_LOCAL, 2 * e)
                return
    bits = 0
    low, high = first >> BLOCK_SHIFT, ((end - 1) >> BLOCK_SHIFT) + 1
    for block in range(low, high):
        bits |= flags[block]
    own = 1 << slot if slot >= 0 else 0
    if bits & ~own:
        _check_readers(m, tile, slot, agent, partner, clock, pc, first, end, bits & ~own)
    for e in range(first, end):
        writes[e] = epoch
    # a checked write of a whole block stands for all accesses before it
    for block in range((first + (1 << BLOCK_SHIFT) - 1) >> BLOCK_SHIFT, end >> BLOCK_SHIFT):
        flags[block] = 0


@jit
def local_access(
    m: Record, tile: int, slot: int, agent: int, partner: int, clock: Int32Array, pc: int,
    low: int, size: int, stride: int, rows: int, write: bool,
) -> None:  # fmt: skip
    """Check and note an access of ``rows`` rows of ``size`` bytes, ``stride`` bytes apart from ``low``."""
    if rows > 1 and stride == size:
        size *= rows
        rows = 1
    for row in range(rows):
        at = low + row * stride
        first, end = at >> 1, (at + size + 1) >> 1
        if write:
            write_elements(m, tile, slot, agent, partner, clock, pc, first, end)
        else:
            read_elements(m, tile, slot, agent, partner, clock, pc, first, end)
        if m.error:
            return


@jit
def row_access(
    m: Record,
    p: int,
    row: int,
    bank: int,
    agent: int,
    partner: int,
    clock: Int32Array,
    pc: int,
    stream: bool,
    write: bool,
) -> None:
    """Check and note an access to a DRAM row by a controller's stream or a core's DMA."""
    at = (p * m.rows + row) * m.banks + bank
    writes = view_i64(m.row_write_at + at * 8, 1)
    mine = view_i64((m.row_stream_at if stream else m.row_dma_at) + at * 8, 1)
    other = view_i64((m.row_dma_at if stream else m.row_stream_at) + at * 8, 1)
    x = writes[0]
    if x != 0 and not ordered(clock, x, partner):
        fail_race(m, agent, pc, x, PLACE_HBM, (p << 40) | (row << 8) | bank)
        return
    epoch = epoch_of(agent, clock[agent], pc)
    if not write:
        mine[0] = epoch
        return
    x = other[0]
    if x != 0 and not ordered(clock, x, partner):
        fail_race(m, agent, pc, x, PLACE_HBM, (p << 40) | (row << 8) | bank)
        return
    writes[0] = epoch


@inline
def agent_place(m: Record, agent: int) -> int:
    """Machine address of the vector clock of an agent."""
    return clock_place(m.clock_at, m, agent)
