"""Error numbers of the engine and how one is noted."""

from __future__ import annotations

from pimc.runtime_sim.engine.jit import jit
from pimc.runtime_sim.engine.state import Record

(
    NO_ERROR,
    OUT_OF_RANGE,
    MISALIGNED,
    UNINITIALISED,
    RACE,
    BAD_OPERAND,
    DIVISION_BY_ZERO,
    SEMAPHORE_OVERFLOW,
    PROTOCOL,
    PC_RANGE,
    LOOP_DEPTH,
    RESOURCES,
    TIME,
    LIVELOCK,
) = range(14)

#: What was exhausted, in ``error_a`` of RESOURCES.
EVENTS, SIGNALS_IN_FLIGHT, CLOCKS = range(3)

#: Streams of errors: a core's or a controller's.
STREAM_CORE, STREAM_PCH = 0, 1

#: Where an out-of-range, misaligned or uninitialised access was, in ``error_a``.
(
    PLACE_LOCAL,
    PLACE_ARRAY,
    PLACE_HBM,
    PLACE_BUFFER,
    PLACE_RESULT,
    PLACE_ACCUMULATOR,
    PLACE_REGISTER,
) = range(7)

#: What was wrong, in ``error_a`` of BAD_OPERAND and PROTOCOL.
(
    WHAT_NEGATIVE,
    WHAT_DEPTH,
    WHAT_TCU,
    WHAT_LANE,
    WHAT_CORE,
    WHAT_PARTS,
    WHAT_HEAD_DIM,
    WHAT_COLUMNS,
    WHAT_MASK,
    WHAT_OPEN,
    WHAT_CLOSED,
    WHAT_HALT_OPEN,
    WHAT_LOOP,
    WHAT_CONFIG,
    WHAT_OTHER_ROW,
    WHAT_WORK,
    WHAT_ROWS,
) = range(17)


@jit
def fail(m: Record, number: int, stream: int, agent: int, pc: int, a: int, b: int) -> None:
    """Note the first error of a run: its number, the stream (kind, number), the pc and two details."""
    if m.error == NO_ERROR:
        m.error = number
        m.error_stream = stream
        m.error_agent = agent
        m.error_pc = pc
        m.error_a = a
        m.error_b = b
