"""The control commands of an HBM-PIM controller: registers, loops, semaphores (parameters: see ``commands``)."""

from __future__ import annotations

from pimc.runtime_sim.engine.checks import agent_place, epoch_of, fail_race, join
from pimc.runtime_sim.engine.errors import (
    BAD_OPERAND,
    LOOP_DEPTH,
    PLACE_REGISTER,
    PROTOCOL,
    STREAM_PCH,
    WHAT_HALT_OPEN,
    WHAT_LOOP,
    fail,
)
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.records import CODE_STRIDE, MAX_OPERANDS, SEMAPHORES
from pimc.runtime_sim.engine.semantics_scalar import wrap32
from pimc.runtime_sim.engine.signals import send
from pimc.runtime_sim.engine.state import (
    AGENT_MASK,
    CLOCK_SHIFT,
    HALTED,
    SIGNAL_TO_CORE,
    WAIT_SEMAPHORE,
    Record,
    clock_place,
    view_i32,
    view_i64,
)

#: Status numbers of PROTOCOL errors that are the controller's own, behind those of dram.py.
OWN = 100


@jit
def stop(m: Record, p: int, h: Record, number: int, a: int, b: int) -> None:
    """Note an error of the command before ``h.pc``."""
    fail(m, number, STREAM_PCH, m.first_pch + p, h.pc - 1, a, b)


@jit
def register(m: Record, p: int, h: Record, index: int) -> int:
    """Read a register; a core's write to it must have happened before."""
    if m.checks:
        agent = m.first_pch + p
        clock = view_i32(agent_place(m, agent), m.agents)
        x = h.reg_write[index]
        if x != 0 and x >> CLOCK_SHIFT > clock[x & AGENT_MASK]:
            fail_race(m, agent, h.pc - 1, x, PLACE_REGISTER, index)
        h.reg_read[index] = epoch_of(agent, clock[agent], h.pc - 1)
    return h.regs[index]


@inline
def _set(m: Record, p: int, h: Record, index: int, value: int) -> None:
    h.regs[index] = wrap32(value)
    if m.checks:
        agent = m.first_pch + p
        h.reg_write[index] = epoch_of(agent, view_i32(agent_place(m, agent), m.agents)[agent], h.pc - 1)


@jit
def command_nop(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Nothing."""
    return now + m.clock_fs


@jit
def command_halt(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """End of the stream, when everything has completed."""
    if h.open_row >= 0:
        stop(m, p, h, PROTOCOL, OWN + WHAT_HALT_OPEN, h.open_row)
    h.state = HALTED
    h.end = max(now, h.done)
    return now


@jit
def command_set(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """rd = imm."""
    o = view_i64(at, MAX_OPERANDS)
    _set(m, p, h, o[0], o[1])
    return now + m.clock_fs


@jit
def command_add(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """rd = rs + imm."""
    o = view_i64(at, MAX_OPERANDS)
    _set(m, p, h, o[0], register(m, p, h, o[1]) + o[2])
    return now + m.clock_fs


@jit
def command_addr(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """rd = rs + rt."""
    o = view_i64(at, MAX_OPERANDS)
    _set(m, p, h, o[0], register(m, p, h, o[1]) + register(m, p, h, o[2]))
    return now + m.clock_fs


@jit
def command_loop(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Start a loop, or skip it if its count is not positive."""
    o = view_i64(at, MAX_OPERANDS)
    count = wrap32(register(m, p, h, o[0]) + o[1])
    if count > 0:
        if h.depth >= m.loop_depth:
            stop(m, p, h, LOOP_DEPTH, h.depth, 0)
            return now
        h.loop_start[h.depth] = h.pc
        h.loop_left[h.depth] = count
        h.depth += 1
        return now + m.clock_fs
    depth = 1
    loop = view_i64(at - 8, 1)[0]
    while depth > 0:
        if h.pc >= h.length:
            stop(m, p, h, BAD_OPERAND, WHAT_LOOP, 0)
            return now
        op = view_i64(m.pch_code_at + (h.code + h.pc) * CODE_STRIDE * 8, 1)[0]
        if op == loop:
            depth += 1
        elif op == loop + 1:  # endl follows loop in the table (a test holds it)
            depth -= 1
        h.pc += 1
    return now + m.clock_fs


@jit
def command_endl(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Back to the start of the innermost loop, or on."""
    if h.depth == 0:
        stop(m, p, h, BAD_OPERAND, WHAT_LOOP, 0)
        return now
    h.loop_left[h.depth - 1] -= 1
    if h.loop_left[h.depth - 1] > 0:
        h.pc = h.loop_start[h.depth - 1]
    else:
        h.depth -= 1
    return now + m.clock_fs


@jit
def command_wait(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Block until the semaphore has the count, then take it."""
    o = view_i64(at, MAX_OPERANDS)
    if h.sem[o[0]] < o[1]:
        h.pc -= 1
        h.waiting, h.needed = o[0], o[1]
        h.state = WAIT_SEMAPHORE
        return now
    h.sem[o[0]] -= o[1]
    if m.checks:
        join(
            view_i32(agent_place(m, m.first_pch + p), m.agents),
            view_i32(clock_place(m.pch_sem_clock_at, m, p * SEMAPHORES + o[0]), m.agents),
        )
    return now + m.clock_fs


@jit
def command_sig(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Signal the core when every earlier command has completed."""
    o = view_i64(at, MAX_OPERANDS)
    time = max(now, h.done) + m.signal_fs
    send(m, SIGNAL_TO_CORE, p // m.per_tile, o[0], 0, m.first_pch + p, h.pc - 1, time)
    return now + m.clock_fs
