"""A core: fetch and dispatch in order, scalar instructions, and the start of instructions on units."""

from __future__ import annotations

from pimc.runtime_sim.engine._dispatch import (
    CLASS_BRANCH,
    CLASS_CFG,
    CLASS_CID,
    CLASS_DIVIDE,
    CLASS_HALT,
    CLASS_HRD,
    CLASS_HRDB,
    CLASS_HSET,
    CLASS_HWR,
    CLASS_LW,
    CLASS_MATRIX,
    CLASS_NOP,
    CLASS_SIGH,
    CLASS_SW,
    CLASS_VECTOR_BINARY,
    CLASS_VECTOR_FILL,
    CLASS_VECTOR_REDUCE,
    CLASS_VECTOR_SCALAR,
    CLASS_VECTOR_UNARY,
    CLASS_WAIT,
    branch_taken,
    describe_matrix,
    execute_matrix,
    scalar_result,
    vector_binary,
    vector_reduce,
    vector_scalar,
    vector_unary,
)
from pimc.runtime_sim.engine.array_checks import check_units
from pimc.runtime_sim.engine.checks import agent_place, copy_clock, join, local_access
from pimc.runtime_sim.engine.describe import (
    check_rows,
    describe_binary,
    describe_fill,
    describe_hrdb,
    describe_message,
    describe_reduction,
    describe_scalar_operand,
    describe_transfer,
    describe_unary,
    local,
    writes,
)
from pimc.runtime_sim.engine.errors import DIVISION_BY_ZERO, PC_RANGE, STREAM_CORE, fail
from pimc.runtime_sim.engine.heap import next_time, push
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.livelock import turned
from pimc.runtime_sim.engine.noc import room, send_message
from pimc.runtime_sim.engine.numbers import load_float, load_half, local_base, store_float, store_half
from pimc.runtime_sim.engine.overflow import count_reduction, count_results, note
from pimc.runtime_sim.engine.records import ADDRESSES, CODE_STRIDE, EFFORT_LIMIT, FLIGHTS, MAX_OPERANDS, SEMAPHORES
from pimc.runtime_sim.engine.scoreboard import all_finished, enter, hazard
from pimc.runtime_sim.engine.semantics_matrix import PCH_MASK, PCH_STRIDE, VECTOR_ROWS, VECTOR_STRIDES
from pimc.runtime_sim.engine.semantics_scalar import wrap32
from pimc.runtime_sim.engine.signals import send
from pimc.runtime_sim.engine.state import (
    EVENT_CORE,
    HALTED,
    LOCAL,
    NOC,
    PENDING,
    READ,
    SCU,
    SIGNAL_REGISTER,
    SIGNAL_TO_GROUP,
    WAIT_MESSAGE,
    WAIT_SEMAPHORE,
    WAIT_TRANSFER,
    WRITE,
    XFER,
    FloatArray,
    Record,
    clock_place,
    core_of,
    staging_of,
    view_f32,
    view_i32,
    view_i64,
)
from pimc.runtime_sim.engine.transfers import request_columns, request_linear

#: Returned in place of a time: the core waits and something will wake it.
BLOCKED = -1
_STEPS = 4096


@inline
def _table(address: int, op: int) -> int:
    """Entry of a table by instruction number."""
    return view_i64(address, op + 1)[op]


@jit
def _operands(m: Record, core: Record, s: Record, op: int, at: int, now: int) -> int:
    """Fill the operand values; returns when the registers among them are ready."""
    code = view_i64(at, CODE_STRIDE)
    mask = _table(m.op_registers_at, op)
    for i in range(MAX_OPERANDS):
        value = code[1 + i]
        if mask >> i & 1:
            now = max(now, core.ready[value])
            value = core.regs[value]
        s.value[i] = value
    s.ranges = 0
    s.work = 1
    s.repeat = 1
    for i in range(ADDRESSES):
        s.step[i] = 0
    s.pc = core.pc
    s.op = op
    return now


@inline
def _write_register(m: Record, core: Record, index: int, value: int, op: int, now: int) -> None:
    """Write a register (r0 stays 0); it is ready after the instruction's latency."""
    if index != 0:
        core.regs[index] = wrap32(value)
        pipeline = _table(m.latency_pipeline_at, _table(m.op_latency_at, op))
        core.ready[index] = now + (1 + pipeline) * m.period


@jit
def _branch(m: Record, c: int, core: Record, s: Record, op: int, now: int) -> int:
    """A branch; one that is taken costs its latency."""
    if branch_taken(op, s.value[0], s.value[1]):
        core.pc += s.value[2]
        turned(m, c, core, s.pc)
        return now + (1 + _table(m.latency_pipeline_at, _table(m.op_latency_at, op))) * m.period
    core.pc += 1
    return now + m.period


@jit
def _access(m: Record, c: int, s: Record) -> None:
    """Check and note the local-memory accesses of an instruction of core ``c``."""
    clock = view_i32(agent_place(m, c), m.agents)
    for i in range(s.ranges):
        if s.space[i] == LOCAL and not m.error:
            local_access(
                m, c, 0, c, m.first_dma + c, clock, s.pc,
                s.low[i], s.size[i], s.stride[i], s.rows[i], s.mode[i] == WRITE,
            )  # fmt: skip


@jit
def _memory_word(m: Record, c: int, core: Record, s: Record, op: int, store: bool, now: int) -> int:
    """lw and sw: wait for instructions in flight on the word, then do it at once."""
    address = s.value[1] + s.value[2]
    local(m, c, s, WRITE if store else READ, address, 4, 4)
    if m.error:
        return now
    until = hazard(m, c, s, now)
    if until > now:
        return _later(core, until)
    if m.checks:
        _access(m, c, s)
    word = view_i32(local_base(m, c) + address, 1)
    if store:
        word[0] = s.value[0]
    else:
        core.loads += 1
        _write_register(m, core, s.value[0], word[0], op, now)
    core.pc += 1
    return now + m.period


@inline
def _later(core: Record, until: int) -> int:
    """Look again at ``until``, or when a transfer completes."""
    if until >= PENDING:
        core.state = WAIT_TRANSFER
        return BLOCKED
    return until


@jit
def _control(m: Record, c: int, core: Record, s: Record, op: int, kind: int, now: int) -> int:
    """halt, wait, sigh and hset."""
    if kind == CLASS_WAIT:
        need = s.value[1] + s.value[2]
        if core.sem[s.value[0]] < need:
            core.state, core.waiting, core.needed = WAIT_SEMAPHORE, s.value[0], need
            return BLOCKED
        core.sem[s.value[0]] -= max(need, 0)
        if m.checks:
            join(
                view_i32(agent_place(m, c), m.agents),
                view_i32(clock_place(m.core_sem_clock_at, m, c * SEMAPHORES + s.value[0]), m.agents),
            )
    elif kind == CLASS_HALT:
        until = all_finished(m, c, now, True)
        if until > now:
            return _later(core, until)
        core.state = HALTED
        core.end = now
        return BLOCKED
    else:
        if kind == CLASS_SIGH:
            until = all_finished(m, c, now, False)
            if until > now:
                return until
        delay = (1 + _table(m.latency_pipeline_at, _table(m.op_latency_at, op))) * m.period
        if kind == CLASS_SIGH:
            send(m, SIGNAL_TO_GROUP, c, s.value[0], 1, c, s.pc, now + delay)
        else:
            send(m, SIGNAL_REGISTER, c, s.value[0], s.value[1], c, s.pc, now + delay)
    core.pc += 1
    return now + m.period


@jit
def _load(m: Record, c: int, address: int, wide: int, out: FloatArray, n: int) -> None:
    """Vector of n fp16 or fp32 elements as float32."""
    if wide == 4:
        load_float(local_base(m, c) + address, out, n)
    else:
        load_half(local_base(m, c) + address, out, n)


@jit
def _vector(m: Record, c: int, s: Record, op: int, kind: int) -> None:
    """Data of a vector instruction."""
    n = s.work
    source, target = _table(m.op_wide_at, op) >> 4, _table(m.op_wide_at, op) & 15
    x, out = view_f32(m.scratch_a_at, n), view_f32(m.scratch_c_at, n)
    if kind == CLASS_VECTOR_REDUCE:
        _load(m, c, s.value[1], source, x, n)
        partial = view_f32(m.scratch_b_at, m.vcu_lanes)
        value = vector_reduce(op, x, n, m.vcu_lanes, partial)
        view_f32(local_base(m, c) + s.value[0], 1)[0] = value
        note(m, c, s, count_reduction(value, x, n))
        return
    if n == 0:
        return
    y, y_step = x, 1  # the second operand: another vector, a scalar, or none
    if kind != CLASS_VECTOR_FILL:
        _load(m, c, s.value[1], source, x, n)
    if kind == CLASS_VECTOR_BINARY:
        y = view_f32(m.scratch_b_at, n)
        _load(m, c, s.value[2], source, y, n)
        vector_binary(op, x, y, out, n)
    elif kind == CLASS_VECTOR_UNARY:
        vector_unary(op, x, out, n)
    else:
        y, y_step = view_f32(local_base(m, c) + s.value[2], 1), 0
        vector_scalar(op, x, y[0], out, n)
    if kind == CLASS_VECTOR_FILL:
        note(m, c, s, count_results(out, n, target, y, 0, y, 0))
    else:
        note(m, c, s, count_results(out, n, target, x, 1, y, y_step))
    if target == 4:
        store_float(local_base(m, c) + s.value[0], out, n)
    else:
        store_half(local_base(m, c) + s.value[0], out, n)


@jit
def _take_rows(core: Record, s: Record, moving: int) -> None:
    """Rows and strides of a many-rows instruction; ``moving``: its operands that have rows, a bit each."""
    s.repeat = core.cfg[VECTOR_ROWS]
    for i in range(ADDRESSES):
        if moving >> i & 1:
            s.step[i] = core.cfg[VECTOR_STRIDES + i]


@jit
def _describe(m: Record, c: int, core: Record, s: Record, op: int, kind: int, at: int) -> None:
    """Ranges and work of an instruction for a unit."""
    source, target = _table(m.op_wide_at, op) >> 4, _table(m.op_wide_at, op) & 15
    if kind == CLASS_VECTOR_BINARY:
        describe_binary(m, c, s, source, target)
    elif kind == CLASS_VECTOR_SCALAR:
        describe_scalar_operand(m, c, s, source, target)
    elif kind == CLASS_VECTOR_FILL:
        describe_fill(m, c, s, target)
    elif kind == CLASS_VECTOR_UNARY:
        describe_unary(m, c, s, source, target)
    elif kind == CLASS_VECTOR_REDUCE:
        describe_reduction(m, c, s, source)
    elif kind == CLASS_MATRIX:
        describe_matrix(m, c, core, s, op)
    elif kind == CLASS_HRD:
        describe_transfer(m, c, s, s.value[0], s.value[1], s.value[2], False)
    elif kind == CLASS_HWR:
        describe_transfer(m, c, s, s.value[0], s.value[1], s.value[2], True)
    elif kind == CLASS_HRDB:
        describe_hrdb(m, c, core, s)
    else:
        form = _table(m.op_wide_at, op) & 15
        describe_message(m, c, core, s, form & 2 != 0, form & 1 != 0)
    if s.repeat != 1:
        check_rows(m, c, s)


@jit
def _transfer(m: Record, c: int, core: Record, s: Record, kind: int) -> None:
    """Hand a transfer to the controllers; it finishes when they say so."""
    core.dma_clock += 1
    if s.work == 0:
        return
    s.finish = PENDING
    s.pending = 0
    s.order = core.dma_next
    core.dma_next += 1
    core.outstanding += 1
    slot = enter(m, c, s)
    if m.checks:
        clock = view_i32(clock_place(m.flight_clock_at, m, c * FLIGHTS + slot), m.agents)
        copy_clock(clock, view_i32(agent_place(m, c), m.agents))
        clock[m.first_dma + c] = core.dma_clock
    if kind == CLASS_HRDB:
        request_columns(
            m, c, slot, s.value[0], s.value[1], s.value[2], s.value[3], core.cfg[PCH_MASK], core.cfg[PCH_STRIDE]
        )
    else:
        request_linear(m, c, slot, s.value[0], s.value[1], s.value[2], kind == CLASS_HWR)


@jit
def _execute(m: Record, c: int, core: Record, s: Record, op: int, kind: int) -> None:
    """Checks and data of an instruction of the vector, PIM, tensor or transpose unit."""
    if kind == CLASS_MATRIX:
        if s.work > 0 or writes(s):
            check_units(m, c, core, s)
            if m.functional and not m.error:
                _rows(m, c, s, op, kind)
    elif m.functional:
        _rows(m, c, s, op, kind)


@jit
def _rows(m: Record, c: int, s: Record, op: int, kind: int) -> None:
    """Data of an instruction, row after row."""
    for _ in range(s.repeat):
        if kind == CLASS_MATRIX:
            execute_matrix(m, c, s, op)
        else:
            _vector(m, c, s, op, kind)
        for i in range(ADDRESSES):
            s.value[i] += s.step[i]
    for i in range(ADDRESSES):
        s.value[i] -= s.repeat * s.step[i]


@jit
def _unit(m: Record, c: int, core: Record, s: Record, op: int, kind: int, at: int, now: int) -> int:
    """Start an instruction on its unit, or say when to look again."""
    unit = _table(m.op_unit_at, op)
    if core.unit_free[unit] > now:
        return core.unit_free[unit]
    moving = _table(m.op_rows_at, op)
    if moving:
        _take_rows(core, s, moving)
    _describe(m, c, core, s, op, kind, at)
    if m.error:
        return now
    until = hazard(m, c, s, now)
    if until > now:
        return _later(core, until)
    payload = 0
    if unit == XFER and core.outstanding >= m.transfer_depth:
        return _later(core, PENDING)
    if unit == NOC:
        payload = room(m, c, s.work)
        if payload < 0:
            core.state = WAIT_MESSAGE
            return BLOCKED
    model = _table(m.op_latency_at, op)
    rate = _table(m.latency_rate_at, model)
    busy = max(1, s.repeat * max(1, (s.work + rate - 1) // rate)) * m.period
    core.unit_free[unit] = now + busy
    core.unit_busy[unit] += busy
    s.unit = unit
    core.pc += 1
    if unit == XFER:
        _transfer(m, c, core, s, kind)
        return now + m.period
    s.finish = now + busy
    if m.checks:
        _access(m, c, s)
    if m.error:
        return now
    if unit == NOC:
        send_message(m, c, s, payload, _table(m.op_wide_at, op) & 1 != 0, now)
    else:
        s.finish += _table(m.latency_pipeline_at, model) * m.period
        _execute(m, c, core, s, op, kind)
    enter(m, c, s)
    return now + m.period


@jit
def _scalar(m: Record, c: int, core: Record, s: Record, op: int, kind: int, now: int) -> int:
    """An instruction that touches registers only."""
    if kind == CLASS_BRANCH:
        return _branch(m, c, core, s, op, now)
    if kind == CLASS_CFG:
        core.cfg[s.value[0]] = s.value[1]
    elif kind == CLASS_CID:
        _write_register(m, core, s.value[0], c, op, now)
    elif kind != CLASS_NOP:
        if kind == CLASS_DIVIDE and s.value[2] == 0:
            fail(m, DIVISION_BY_ZERO, STREAM_CORE, c, core.pc, 0, 0)
            return now
        _write_register(m, core, s.value[0], scalar_result(op, s.value[1], s.value[2]), op, now)
    core.pc += 1
    return now + m.period


@inline
def _registers_only(kind: int) -> bool:
    """Whether instructions of a class interact with nothing outside the core's registers."""
    return kind <= CLASS_DIVIDE or kind in (CLASS_CID, CLASS_CFG, CLASS_NOP)


@jit
def step(m: Record, c: int) -> None:
    """Run core ``c`` from the present until it waits or another event comes first."""
    core = core_of(m, c)
    core.scheduled = 0
    s = staging_of(m)
    now = m.time
    for _ in range(_STEPS):
        if core.pc < 0 or core.pc >= core.length:
            fail(m, PC_RANGE, STREAM_CORE, c, core.pc, core.length, 0)
        if m.error:
            return
        if m.effort > EFFORT_LIMIT:
            break
        m.effort += 16
        at = m.core_code_at + (core.code + core.pc) * CODE_STRIDE * 8
        op = view_i64(at, 1)[0]
        kind = _table(m.op_class_at, op)
        alone = _registers_only(kind)
        if not alone and now > m.time:
            if next_time(m) <= now:
                break
            m.time = now
        ready = _operands(m, core, s, op, at, now)
        if ready > now:
            now = ready
            continue
        pc = core.pc
        m.progress += int(not alone and kind != CLASS_LW)
        if alone:
            now = _scalar(m, c, core, s, op, kind, now)
        elif kind in (CLASS_LW, CLASS_SW):
            now = _memory_word(m, c, core, s, op, kind == CLASS_SW, now)
        elif kind in (CLASS_WAIT, CLASS_HALT, CLASS_SIGH, CLASS_HSET):
            now = _control(m, c, core, s, op, kind, now)
        else:
            now = _unit(m, c, core, s, op, kind, at, now)
        if now == BLOCKED:
            return
        if core.pc != pc or kind == CLASS_BRANCH:
            core.executed += 1
            if kind < CLASS_VECTOR_BINARY:
                core.unit_busy[SCU] += m.period
    core.scheduled = 1
    push(m, now, EVENT_CORE, c)
