"""The event queue: a binary heap ordered by time, then by the order of insertion."""

from __future__ import annotations

from pimc.runtime_sim.engine.errors import EVENTS, RESOURCES, STREAM_CORE, fail
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.state import PENDING, Record, view_i64


@inline
def next_time(m: Record) -> int:
    """Time of the next event, PENDING if there is none."""
    if m.heap_size == 0:
        return PENDING
    return view_i64(m.heap_at, 1)[0]


@jit
def push(m: Record, time: int, kind: int, argument: int) -> None:
    """Insert an event."""
    if m.heap_size >= m.heap_capacity:
        fail(m, RESOURCES, STREAM_CORE, 0, 0, EVENTS, m.heap_capacity)
        return
    heap = view_i64(m.heap_at, m.heap_capacity * 3)
    order = m.sequence << 8 | kind
    m.sequence += 1
    i = m.heap_size
    m.heap_size += 1
    while i > 0:
        parent = (i - 1) >> 1
        at = parent * 3
        if heap[at] < time or (heap[at] == time and heap[at + 1] < order):
            break
        heap[i * 3] = heap[at]
        heap[i * 3 + 1] = heap[at + 1]
        heap[i * 3 + 2] = heap[at + 2]
        i = parent
    heap[i * 3] = time
    heap[i * 3 + 1] = order
    heap[i * 3 + 2] = argument


@jit
def pop(m: Record) -> tuple[int, int, int]:
    """Remove the first event: (time, kind, argument)."""
    heap = view_i64(m.heap_at, m.heap_capacity * 3)
    time, kind, argument = heap[0], heap[1] & 255, heap[2]
    m.heap_size -= 1
    size = m.heap_size
    last = size * 3
    moved_time, moved_order, moved_argument = heap[last], heap[last + 1], heap[last + 2]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        at = child * 3
        if child + 1 < size and (heap[at + 3] < heap[at] or (heap[at + 3] == heap[at] and heap[at + 4] < heap[at + 1])):
            child += 1
            at += 3
        if moved_time < heap[at] or (moved_time == heap[at] and moved_order < heap[at + 1]):
            break
        heap[i * 3] = heap[at]
        heap[i * 3 + 1] = heap[at + 1]
        heap[i * 3 + 2] = heap[at + 2]
        i = child
    heap[i * 3] = moved_time
    heap[i * 3 + 1] = moved_order
    heap[i * 3 + 2] = moved_argument
    return time, kind, argument
