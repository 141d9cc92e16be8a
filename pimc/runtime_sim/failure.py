"""From the engine's error number to an exception that names stream, instruction, assembly text and source op."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pimc.diagnostics import (
    DeadlockError,
    DramTimingError,
    InternalError,
    LivelockError,
    OutOfRangeError,
    PimcError,
    RaceError,
    RunLimitError,
    SimError,
    UninitialisedReadError,
)
from pimc.isa.program import STREAM_ISAS, LoadedProgram
from pimc.runtime_sim import dram
from pimc.runtime_sim.engine import errors as e
from pimc.runtime_sim.engine.control_commands import OWN
from pimc.runtime_sim.engine.records import BYTES_LIMIT, FLIGHTS, MACS_LIMIT, ROWS_LIMIT
from pimc.runtime_sim.engine.state import (
    AGENT_MASK,
    EVENT_CORE,
    EVENT_HEAD,
    EVENT_PCH,
    EVENT_SIGNAL,
    EVENT_TAIL,
    HALTED,
    PC_MASK,
    PC_SHIFT,
    RUNNING,
    WAIT_MESSAGE,
    WAIT_SEMAPHORE,
    WAIT_TRANSFER,
)
from pimc.runtime_sim.memories import Memories

_PLACES = {
    e.PLACE_LOCAL: "local memory at byte",
    e.PLACE_ARRAY: "PIM array row",
    e.PLACE_HBM: "HBM",
    e.PLACE_BUFFER: "global buffer column",
    e.PLACE_RESULT: "result register",
    e.PLACE_ACCUMULATOR: "accumulator",
    e.PLACE_REGISTER: "controller register",
}
_WHAT = {
    e.WHAT_NEGATIVE: "a negative or impossible length or stride",
    e.WHAT_DEPTH: "depth is outside the array's lanes",
    e.WHAT_TCU: "rows or columns do not fit the tensor unit",
    e.WHAT_LANE: "lane + depth leaves the array row",
    e.WHAT_CORE: "a receiving core that does not exist",
    e.WHAT_PARTS: "parts must be at least 1",
    e.WHAT_HEAD_DIM: "head_dim must be even, positive, and divide the number of elements",
    e.WHAT_COLUMNS: "columns outside the row",
    e.WHAT_MASK: "pch_mask names no pseudo-channel of the tile",
    e.WHAT_OPEN: "banks are already open",
    e.WHAT_CLOSED: "no row is open",
    e.WHAT_HALT_OPEN: "the stream ends with open banks",
    e.WHAT_LOOP: "loop and endl do not match",
    e.WHAT_OTHER_ROW: "another row is open",
    e.WHAT_WORK: f"too much work for one instruction: more than {ROWS_LIMIT} rows, {BYTES_LIMIT} bytes with the rows "
    f"counted each, or {MACS_LIMIT} multiply-accumulates",
    e.WHAT_ROWS: "a row of the destination meets another row of an operand",
}


_EXHAUSTED = {
    e.EVENTS: "more than {} messages, signals and transfers are on their way",
    e.SIGNALS_IN_FLIGHT: "more than {} signals are on their way",
    e.CLOCKS: "a stream sends more than {} signals and messages, which the race checker cannot tell apart",
}


class Explainer:
    """Words for what went wrong in a run of one entry of a program."""

    def __init__(self, program: LoadedProgram, entry: str, memories: Memories) -> None:
        """``memories`` holds the state at the time of the error."""
        self._program, self._entry, self._memories = program, entry, memories

    def stream(self, agent: int) -> tuple[str, str | None]:
        """(name, code tensor) of the stream an agent of the race checker belongs to."""
        m = self._memories.figure
        entry = self._program.entries[self._entry]
        for first, kind in ((m("host"), "host"), (m("first_noc"), "noc"), (m("first_dma"), "dma")):
            if agent >= first:
                if kind == "host":
                    return "host", None
                core = agent - first
                label = "message of core" if kind == "noc" else "transfer of core"
                return f"{self._entry}, {label} {core}", entry.cores.get(core)
        if agent >= m("first_pch"):
            p = agent - m("first_pch")
            return f"{self._entry}, hbm {p}", entry.groups.get(p // m("per_tile"))
        return f"{self._entry}, core {agent}", entry.cores.get(agent)

    def instruction(self, agent: int, pc: int) -> str:
        """Stream, pc, assembly text and source location, for people."""
        name, tensor = self.stream(agent)
        if tensor is None or not 0 <= pc < len(self._program.decoded[tensor].op):
            return f"{name}, pc {pc}"
        text = self.assembly(tensor, pc)
        locations = self._program.locations.get(tensor)
        source = locations.at(pc) if locations else None
        return f"{name}, pc {pc}: {text}" + (f" ({source})" if source else "")

    def assembly(self, tensor: str, pc: int) -> str:
        """Assembly text of a word."""
        from pimc.isa.disasm import format_instruction  # the assembler's grammar is not needed before an error

        isa = STREAM_ISAS[tensor.split("/")[2]]
        decoded = self._program.decoded[tensor]
        instruction = isa.instructions[int(decoded.op[pc])]
        text = format_instruction(isa, instruction, [int(value) for value in decoded.operands[pc]])
        return " ".join(text.split())

    def event(self) -> str:
        """The instruction that the present event of the engine belongs to, for people."""
        m, arrays = self._memories.figure, self._memories.arrays
        kind, argument = m("event_kind"), m("event_argument")
        if kind == EVENT_CORE:
            return self.instruction(argument, int(arrays["staging"]["pc"][0]))
        if kind == EVENT_PCH:
            return self.instruction(m("first_pch") + argument, int(arrays["pchs"]["pc"][argument]) - 1)
        if kind in (EVENT_HEAD, EVENT_TAIL):
            message = arrays["messages"][argument // m("cores")]
            return self.instruction(m("first_noc") + int(message["sender"]), int(message["pc"]))
        if kind == EVENT_SIGNAL:
            return self.instruction(int(arrays["signals"]["agent"][argument]), int(arrays["signals"]["pc"][argument]))
        return self.instruction(m("first_dma") + argument // FLIGHTS, int(arrays["flights"]["pc"][argument]))

    def broken(self, memory: str) -> InternalError:
        """The exception for a memory error that the guarded build found, which ``memory`` words."""
        return InternalError(f"the engine leaves its memory: {memory}", where=self.event())

    def error(self) -> PimcError:
        """The exception for the noted error."""
        m = self._memories.figure
        where = self.instruction(m("error_agent"), m("error_pc"))
        number, a, b = m("error"), m("error_a"), m("error_b")
        explain: Mapping[int, Callable[[], tuple[type[PimcError], str, str | None]]] = {
            e.OUT_OF_RANGE: lambda: (OutOfRangeError, f"access outside {_PLACES[a]} {b}", None),
            e.MISALIGNED: lambda: (OutOfRangeError, f"misaligned access: {_PLACES[a]} {b}", None),
            e.UNINITIALISED: lambda: (
                UninitialisedReadError,
                f"read of {self._place(a, b)}, which nothing has written",
                None,
            ),
            e.RACE: self._race,
            e.BAD_OPERAND: lambda: (SimError, f"{_WHAT[a]} ({b})", None),
            e.DIVISION_BY_ZERO: lambda: (SimError, "division by zero", None),
            e.SEMAPHORE_OVERFLOW: lambda: (SimError, f"semaphore {a} overflows", None),
            e.PROTOCOL: lambda: (DramTimingError, self._protocol(a, b), None),
            e.PC_RANGE: lambda: (SimError, "the stream runs past its end", "end it with halt"),
            e.LOOP_DEPTH: lambda: (SimError, f"more than {a} nested loops", None),
            e.RESOURCES: lambda: (SimError, _EXHAUSTED[a].format(b), "wait for some of them before sending more"),
            e.LIVELOCK: lambda: (LivelockError, self._livelock(a), None),
            e.TIME: lambda: (
                SimError,
                f"the run takes more than {a} femtoseconds, the simulator's limit",
                "it may never end; --max-cycles stops it earlier",
            ),
        }
        if number == e.TIME or (number == e.RESOURCES and a == e.EVENTS):
            where = self.event()
        cls, message, hint = explain[number]()
        return cls(message, hint=hint, where=where)

    def _place(self, place: int, value: int) -> str:
        if place == e.PLACE_HBM:
            return f"HBM row {self._memories.figure('error_address')} of bank {value}"
        return f"{_PLACES[place]} {value}"

    def _race(self) -> tuple[type[PimcError], str, str | None]:
        m = self._memories.figure
        other = m("error_other")
        name = self.instruction(other & AGENT_MASK, other >> PC_SHIFT & PC_MASK)
        address = m("error_address")
        if m("error_a") == e.PLACE_HBM:
            place = f"HBM pseudo-channel {address >> 40}, row {address >> 8 & 0xFFFFFFFF}, bank {address & 255}"
        else:
            place = f"{_PLACES[m('error_a')]} {address}"
        return RaceError, f"race on {place} with [{name}]", "order the two by a semaphore (sigh, sig, a message; wait)"

    def _protocol(self, status: int, command: int) -> str:
        if status >= OWN:
            return f"{_WHAT[status - OWN]} ({command})"
        address = self._memories.figure("error_address")
        return dram.status_text(status, command, address >> 32, address & 0xFFFFFFFF)

    def _livelock(self, reads: int) -> str:
        why = "nothing is left that could change what it reads" if reads else "nothing outside can change that"
        others = len(self._unfinished()) - 1
        rest = f"; {others} other streams have not ended" if others else ""
        return f"the stream repeats the same instructions with the same registers for ever, and {why}{rest}"

    def deadlock(self) -> PimcError | None:
        """The exception for streams that wait for ever, None if all have halted."""
        waits = self._unfinished()
        if not waits:
            return None
        return DeadlockError(f"{len(waits)} streams wait for ever: {_shown(waits)}", where=self._entry)

    def stopped(self, reached: str) -> PimcError:
        """The exception for a run that reached a limit, which ``reached`` words."""
        streams = self._unfinished()
        where = f"{len(streams)} streams have not ended: {_shown(streams)}" if streams else "all streams have ended"
        return RunLimitError(f"{reached}; {where}", where=self._entry)

    def _unfinished(self) -> list[str]:
        """Every stream that has not halted: its instruction, and what it waits for."""
        m = self._memories
        found = []
        for c, core in enumerate(m.arrays["cores"]):
            state = int(core["state"])
            if state == HALTED:
                continue
            reason = {
                RUNNING: "runs",
                WAIT_SEMAPHORE: f"waits for semaphore {core['waiting']} >= {core['needed']} "
                f"(is {core['sem'][int(core['waiting'])]})",
                WAIT_TRANSFER: "waits for an HBM transfer",
                WAIT_MESSAGE: "waits for a message to leave",
            }[state]
            found.append(f"[{self.instruction(c, int(core['pc']))}] {reason}")
        for p, h in enumerate(m.arrays["pchs"]):
            state = int(h["state"])
            if state == HALTED:
                continue
            reason = (
                f"waits for semaphore {h['waiting']} >= {h['needed']} (is {h['sem'][int(h['waiting'])]})"
                if state == WAIT_SEMAPHORE
                else "runs"
            )
            found.append(f"[{self.instruction(m.figure('first_pch') + p, int(h['pc']))}] {reason}")
        return found


def _shown(streams: list[str]) -> str:
    """The first streams of a list, in words of bounded length."""
    return "; ".join(streams[:8]) + (f"; and {len(streams) - 8} more" if len(streams) > 8 else "")
