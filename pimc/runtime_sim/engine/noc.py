"""The network: a message leaves its sender's port, crosses the mesh, and enters each receiver's port.

Ports pass ``noc_rate`` bytes a cycle, one message at a time in order of arrival; links are not a bottleneck.  The
data is taken when the message is sent and written when its last byte arrives.
"""

from __future__ import annotations

from pimc.runtime_sim.engine.checks import agent_place, copy_clock, epoch_of, fail_race, local_access, tick
from pimc.runtime_sim.engine.errors import PLACE_LOCAL
from pimc.runtime_sim.engine.heap import push
from pimc.runtime_sim.engine.jit import jit
from pimc.runtime_sim.engine.numbers import copy_bytes, local_base
from pimc.runtime_sim.engine.records import FLIGHTS, MESSAGES
from pimc.runtime_sim.engine.scoreboard import overlap
from pimc.runtime_sim.engine.semantics_matrix import MESSAGE_DST_STRIDE, MESSAGE_SRC_STRIDE
from pimc.runtime_sim.engine.signals import raise_core, wake_core
from pimc.runtime_sim.engine.state import (
    EVENT_HEAD,
    EVENT_TAIL,
    LOCAL,
    WAIT_MESSAGE,
    WRITE,
    Record,
    clock_place,
    core_of,
    flight_of,
    message_of,
    staging_of,
    view_i32,
)


@jit
def room(m: Record, c: int, size: int) -> int:
    """Offset in the sender's payload ring for a message of ``size`` bytes, -1 if it must wait for older ones."""
    core = core_of(m, c)
    while (
        core.message_oldest < core.message_next
        and not message_of(m, c * MESSAGES + core.message_oldest % MESSAGES).active
    ):
        core.message_oldest += 1
    if core.message_next - core.message_oldest >= MESSAGES:
        return -1
    if core.message_oldest == core.message_next:
        return 0
    tail = message_of(m, c * MESSAGES + core.message_oldest % MESSAGES).payload
    head = core.payload_next
    if head >= tail:
        if head + size <= m.payload_bytes:
            return head
        return 0 if size < tail else -1
    return head if head + size < tail else -1


@jit
def send_message(m: Record, c: int, s: Record, at: int, strided: bool, now: int) -> None:
    """Take the data of a message and start it to every receiver (``s``: see describe_message)."""
    core = core_of(m, c)
    slot = c * MESSAGES + core.message_next % MESSAGES
    core.message_next += 1
    n, rows, first, number = s.value[2], s.value[5], s.value[6], s.value[7]
    core.payload_next = at + n * rows
    g = message_of(m, slot)
    g.active, g.sender, g.pc, g.size, g.rows = 1, c, s.pc, n, rows
    g.dst, g.sem, g.payload, g.left = s.value[0], s.value[3], at, number
    g.stride = core.cfg[MESSAGE_DST_STRIDE] if strided else 0
    source_stride = core.cfg[MESSAGE_SRC_STRIDE] if strided else 0
    payload = m.payload_at + c * m.payload_bytes + at
    for row in range(rows):
        copy_bytes(local_base(m, c) + s.value[1] + row * source_stride, payload + row * n, n)
    core.noc_bytes += n * rows * number
    if m.checks:
        core.noc_clock += 1
        clock = view_i32(clock_place(m.message_clock_at, m, slot), m.agents)
        mine = view_i32(agent_place(m, c), m.agents)
        copy_clock(clock, mine)
        clock[m.first_noc + c] = core.noc_clock
        tick(m, mine, c, c, s.pc)
    for receiver in range(first, first + number):
        hops = abs(receiver % m.noc_columns - c % m.noc_columns) + abs(receiver // m.noc_columns - c // m.noc_columns)
        push(m, now + m.noc_injection + hops * m.noc_hop, EVENT_HEAD, slot * m.cores + receiver)


@jit
def head_arrives(m: Record, slot: int, receiver: int) -> None:
    """The first byte is at the receiver's port: the message takes the port for its length."""
    core = core_of(m, receiver)
    g = message_of(m, slot)
    cycles = max(1, (g.size * g.rows + m.noc_rate - 1) // m.noc_rate)
    end = max(m.time, core.ejection_free) + cycles * m.period
    core.ejection_free = end
    push(m, end, EVENT_TAIL, slot * m.cores + receiver)


@jit
def _check_arrival(m: Record, slot: int, receiver: int) -> None:
    """Races of the write: with what others did before, and with what the receiver is doing."""
    g = message_of(m, slot)
    agent = m.first_noc + g.sender
    clock = view_i32(clock_place(m.message_clock_at, m, slot), m.agents)
    local_access(m, receiver, -1, agent, -1, clock, g.pc, g.dst, g.size, g.stride, g.rows, True)
    s = staging_of(m)
    s.ranges = 1
    s.space[0], s.mode[0], s.low[0], s.size[0], s.stride[0], s.rows[0] = LOCAL, WRITE, g.dst, g.size, g.stride, g.rows
    for other in range(FLIGHTS):
        f = flight_of(m, receiver, other)
        if not f.active or f.finish <= m.time:
            continue
        for j in range(f.ranges):
            if f.space[j] == LOCAL and overlap(s, 0, f, j):
                fail_race(m, agent, g.pc, epoch_of(receiver, 0, f.pc), PLACE_LOCAL, f.low[j])
                return


@jit
def tail_arrives(m: Record, slot: int, receiver: int) -> None:
    """The last byte is there: write the data, raise the semaphore."""
    g = message_of(m, slot)
    size = g.size * g.rows
    m.effort += size + 16 * g.rows
    if m.checks and size:
        _check_arrival(m, slot, receiver)
    payload = m.payload_at + g.sender * m.payload_bytes + g.payload
    for row in range(g.rows):
        copy_bytes(payload + row * g.size, local_base(m, receiver) + g.dst + row * g.stride, g.size)
    raise_core(m, receiver, g.sem, clock_place(m.message_clock_at, m, slot))
    g.left -= 1
    if g.left == 0:
        g.active = 0
        wake_core(m, g.sender, WAIT_MESSAGE)
