"""An entry executed on terms, with every two conflicting accesses checked to be ordered.

What is taken as ordered: a core's instructions with each other and with its own transfers (the scoreboard), a
controller's commands, and what the semaphores order for any times (``order.py``). An instruction has read its
operands when a later message of its core arrives somewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from equivalence.memory import Accessor, Clock, Components, Index, LocalMemories, span
from equivalence.order import SeenSignals
from equivalence.schedule import Machine, Step
from equivalence.streams import CannotTellError, Effect
from equivalence.terms import CONSTANTS, UNWRITTEN, Terms, mix, products
from equivalence.units import Core, execute
from pimc.isa.hbm import HBM_ISA

#: A row of a bank: (controller, row, bank), the controller numbered from 0.
Row = tuple[int, int, int]


@dataclass
class Dram:
    """Rows of HBM as terms: those of the images until something writes them."""

    images: dict[int, NDArray[np.uint16]]
    lanes: int
    written: dict[Row, Terms] = field(default_factory=dict)

    def row(self, at: Row) -> Terms:
        """The terms of a row's cells."""
        if at in self.written:
            return self.written[at]
        image = self.images.get(at[0])
        if image is None or at[1] >= len(image):
            return np.full(self.lanes, UNWRITTEN)
        return CONSTANTS[image[at[1], at[2]]]

    def store(self, at: Row, first: int, terms: Terms) -> None:
        """Write cells of a row."""
        row = self.row(at).copy()
        row[first : first + terms.size] = terms
        self.written[at] = row


@dataclass
class _RowEpochs:
    """The last write and reads of a row: (component, count)."""

    write: tuple[int, int] = (0, 0)
    reads: dict[int, int] = field(default_factory=dict)


@dataclass
class _Controller:
    """A controller's global buffer, result registers, and open row."""

    buffer: Terms
    results: dict[int, Terms] = field(default_factory=dict)
    open_row: int = -1
    writes: dict[int, tuple[int, int]] = field(default_factory=dict)  # of registers: component, count
    reads: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Signal:
    """What a signal carries: its sender's clock, and the number of the message that comes with it (-1: none)."""

    clock: Clock
    message: int


@dataclass(frozen=True)
class Message:
    """What a message wrote, where, with which clock."""

    receivers: range
    at: Index
    terms: Terms
    signal: Signal


@dataclass
class Recording:
    """What passed between the tiles in a run: enough to execute one tile again without the others."""

    steps: list[Step]
    seen: SeenSignals
    sent: dict[tuple[int, int], list[Signal]] = field(default_factory=dict)  # by sender and semaphore
    messages: dict[int, list[Message]] = field(default_factory=dict)  # by sender


class Replay:
    """Executes steps; afterwards ``cores`` hold the local memories and ``dram`` the rows."""

    def __init__(
        self,
        machine: Machine,
        recording: Recording,
        dram: Dram,
        inputs: Mapping[int, Mapping[int, int]],
        cores: range | None = None,
    ) -> None:
        """``inputs``: for each core, the 16-bit words that the host wrote, by byte address; ``cores``: all, or one."""
        self.machine, self.dram, self.recording = machine, dram, recording
        self._components = Components(machine)
        self._clocks = np.zeros((machine.agents, self._components.size), np.int64)
        self._clocks[np.arange(machine.agents), np.arange(machine.agents)] = 1
        self._waits = [0] * machine.agents
        self._transfers: dict[int, int] = {}  # how many a core has begun
        self._rows: dict[Row, _RowEpochs] = {}
        self._controllers: dict[int, _Controller] = {}
        held = cores or range(machine.cores)
        self._local = LocalMemories(machine, self._components, held)
        self.cores = {number: self._make_core(number, inputs[number]) for number in held}

    def run(self) -> None:
        """Execute all steps of the recording, and record what passes between tiles."""
        for step in self.recording.steps:
            self._step(step)

    def _make_core(self, number: int, words: Mapping[int, int]) -> Core:
        m = self.machine
        local = self._local.of(number)
        for address, word in words.items():
            local.terms[address >> 1] = CONSTANTS[word]
        who = Accessor(number, self._clocks[number], 0, self._components.transfers(number))
        return Core(number, local, m, who)

    def _tick(self, agent: int) -> None:
        self._clocks[agent, agent] += 1

    def _send(self, agent: int, semaphores: list[int], message: int = -1) -> Signal:
        """Signals carry the sender's clock (and the message that comes with them)."""
        signal = Signal(self._clocks[agent].copy(), message)
        for semaphore in semaphores:
            self.recording.sent.setdefault((agent, semaphore), []).append(signal)
        self._clocks[agent, agent] += 1
        return signal

    def _wait(self, agent: int, semaphore: int) -> None:
        """Learn what the signals that have surely arrived carried."""
        for sender, count in self.recording.seen.waits[agent][self._waits[agent]]:
            signal = self._signals(sender, semaphore)[count - 1]
            np.maximum(self._clocks[agent], signal.clock, out=self._clocks[agent])
            if signal.message >= 0:
                component = self._components.messages(sender, agent)
                self._clocks[agent, component] = max(self._clocks[agent, component], signal.message)
        self._waits[agent] += 1

    def _signals(self, sender: int, semaphore: int) -> list[Signal]:
        return self.recording.sent[sender, semaphore]

    def _step(self, step: Step) -> None:
        name = step.effect.mnemonic
        if step.agent >= self.machine.cores:
            self._command(step, step.agent - self.machine.cores)
            return
        core = self.cores[step.agent]
        core.who.what = f"core {core.number}, pc {step.effect.pc}: {name}"
        if name == "wait":
            self._wait(step.agent, step.agent * 32 + step.effect.values[0])
        elif name == "sigh":
            agents = [self.machine.controller(core.number, q) for q in range(self.machine.channels)]
            self._send(step.agent, [agent * 32 + step.effect.values[0] for agent in agents])
        elif name == "hset":
            self._set_register(core, step.effect)
        elif name.startswith(("nsend", "nmcast")):
            self._message(core, step.effect)
        elif name in ("hrd", "hwr", "hrdb"):
            self._transfer(core, step.effect)
        elif name != "halt":
            execute(core, step.effect)

    # -- messages and transfers --------------------------------------------------------------------------------

    def _message(self, core: Core, effect: Effect) -> None:
        o = effect.named
        rows = (o.get("message_rows", 1)) if o["n"] else 0
        data = core.local.read(span(o["src"], o["n"], o.get("message_src_stride", 0), rows), core.who).copy()
        at = span(o["dst"], o["n"], o.get("message_dst_stride", 0), rows)
        receivers = self.machine.receivers(effect)
        earlier = self.recording.messages.setdefault(core.number, [])
        signal = self._send(core.number, [receiver * 32 + o["sem"] for receiver in receivers], len(earlier) + 1)
        message = Message(receivers, at, data, signal)
        self._deliver(core.number, message, core.who.what)
        earlier.append(message)

    def _deliver(self, sender: int, message: Message, what: str) -> None:
        """Write a message at those of its receivers that are held."""
        first = self._components.messages(sender, message.receivers.start)
        clock = message.signal.clock.copy()
        clock[first] = message.signal.message  # any of the components: all have the number as their count
        self._local.broadcast(message.receivers, message.at, message.terms, Accessor(first, clock, -1, -1, what))

    def _transfer(self, core: Core, effect: Effect) -> None:
        o = effect.named
        component = self._components.transfers(core.number)
        clock = core.who.clock.copy()  # the core does not learn of its transfer until it touches what that touched
        clock[component] = self._transfers[core.number] = self._transfers.get(core.number, 0) + 1
        who = Accessor(component, clock, 1, core.number, core.who.what)
        if effect.mnemonic == "hrdb":
            self._columns(core, o, who)
        else:
            self._linear(core, o, who, effect.mnemonic == "hwr")

    def _linear(self, core: Core, o: dict[str, int], who: Accessor, write: bool) -> None:
        m = self.machine
        at, address = (o["src"], o["dst"]) if write else (o["dst"], o["src"])
        low, end = address, address + o["n"]
        while low < end:
            block = low // m.row_bytes
            size = min(end, (block + 1) * m.row_bytes) - low
            unit = block // m.channels
            row = (core.number * m.channels + block % m.channels, unit // m.banks, unit % m.banks)
            self._piece(core, row, low % m.row_bytes, at + low - address, size, who, write)
            low += size

    def _columns(self, core: Core, o: dict[str, int], who: Accessor) -> None:
        m = self.machine
        bank, column = divmod(o["column"], m.columns)
        chosen = [q for q in range(m.channels) if o["pch_mask"] >> q & 1]
        for rank, q in enumerate(chosen):
            row = (core.number * m.channels + q, o["row"], bank)
            size = o["n"] * m.column_bytes
            self._piece(core, row, column * m.column_bytes, o["dst"] + rank * o["pch_stride"], size, who, False)

    def _piece(self, core: Core, row: Row, first: int, local: int, size: int, who: Accessor, write: bool) -> None:
        """Part of a row between HBM and local memory; ``first`` and ``size`` in bytes."""
        self._row_access(row, who, write)
        if write:
            self.dram.store(row, first >> 1, core.local.read(span(local, size), who))
            return
        terms = self.dram.row(row)[first >> 1 : (first + size) >> 1]
        if not terms.all():
            raise CannotTellError(f"{who.what}: reads HBM that nothing has written")
        core.local.write(span(local, size), terms, who)

    def _row_access(self, row: Row, who: Accessor, write: bool) -> None:
        epochs = self._rows.setdefault(row, _RowEpochs())
        earlier = [epochs.write, *(epochs.reads.items() if write else ())]
        for component, count in earlier:
            if component not in (who.component, who.partner) and count > who.clock[component]:
                raise CannotTellError(f"{who.what}: nothing orders it with another access to row {row}")
        count = int(who.clock[who.component])
        if write:
            epochs.write = (who.component, count)
        else:
            epochs.reads[who.component] = count

    # -- controllers -------------------------------------------------------------------------------------------

    def _controller(self, number: int) -> _Controller:
        if number not in self._controllers:
            size = 64 * self.machine.column_bytes // 2
            self._controllers[number] = _Controller(np.full(size, UNWRITTEN))
        return self._controllers[number]

    def _set_register(self, core: Core, effect: Effect) -> None:
        """A core sets a register of its controllers: they must have read the old contents."""
        register = effect.values[0]
        for q in range(self.machine.channels):
            agent = self.machine.controller(core.number, q)
            h = self._controller(agent - self.machine.cores)
            if h.reads.get(register, 0) > core.who.clock[agent]:
                raise CannotTellError(f"{core.who.what}: the controller may still read the register")
            h.writes[register] = (core.number, int(core.who.clock[core.number]))
        self._clocks[core.number, core.number] += 1

    def _command(self, step: Step, number: int) -> None:
        m, effect = self.machine, step.effect
        h = self._controller(number)
        core, q = self.cores[number // m.channels], number % m.channels
        what = f"controller {number}, pc {effect.pc}: {effect.mnemonic}"
        who = Accessor(step.agent, self._clocks[step.agent], 2 + q, -1, what)
        name, o = effect.mnemonic, step.registers
        self._registers(h, effect, who)
        if name == "wait":
            self._wait(step.agent, step.agent * 32 + o[0])
        elif name == "sig":
            self._send(step.agent, [core.number * 32 + o[0]])
        elif name == "wrgb":
            _, base, address, column, count, stride = o
            lanes = m.column_bytes // 2
            terms = core.local.read(span(base + address + q * stride, count * m.column_bytes), who)
            h.buffer[column * lanes : (column + count) * lanes] = terms
        elif name == "act":
            h.open_row = o[1] + o[2]
            for bank in range(m.banks):
                self._row_access((number, h.open_row, bank), who, False)
        elif name == "mac":
            self._mac(h, number, o, who)
        elif name == "pre":
            h.open_row = -1
        elif name == "rdres":
            self._read_results(h, core, q, o, who)
        elif name in ("rd", "wr"):
            _, base, row, bank, column, count, local = o
            size = count * m.column_bytes
            at = local + q * size
            self._piece(core, (number, base + row, bank), column * m.column_bytes, at, size, who, name == "wr")
        elif name not in ("nop", "halt", "set", "add", "addr", "loop", "endl", "ref"):
            raise CannotTellError(f"{what}: the checker does not know the command")

    def _registers(self, h: _Controller, effect: Effect, who: Accessor) -> None:
        """What a command reads of registers must be ordered after what a core set."""
        operands = HBM_ISA.instructions[HBM_ISA.index[effect.mnemonic]].operands
        for operand, register in zip(operands, effect.values, strict=True):
            if operand.kind.value != "register":
                continue
            component, count = h.writes.get(register, (0, 0))
            if component != who.component and count > who.clock[component]:
                raise CannotTellError(f"{who.what}: nothing orders it after the core's hset")
            if operand.writes:
                h.writes[register] = (who.component, int(who.clock[who.component]))
            else:
                h.reads[register] = int(who.clock[who.component])

    def _mac(self, h: _Controller, number: int, o: tuple[int, ...], who: Accessor) -> None:
        _, column, buffer, count, result, clear, base = o
        result += base
        lanes = self.machine.column_bytes // 2
        weights = np.stack([self.dram.row((number, h.open_row, bank)) for bank in range(self.machine.banks)])
        weights = weights[:, column * lanes : (column + count) * lanes]
        inputs = h.buffer[buffer * lanes : (buffer + count) * lanes]
        before = np.broadcast_to(mix("zero"), self.machine.banks) if clear else h.results.get(result)
        if before is None or not weights.all() or not inputs.all():
            raise CannotTellError(f"{who.what}: reads what nothing has written")
        h.results[result] = mix("accumulate", before, products(weights, inputs))

    def _read_results(self, h: _Controller, core: Core, q: int, o: tuple[int, ...], who: Accessor) -> None:
        mask, base, address, result, count = o
        channels = mask.bit_count()
        rank = (mask & ((1 << q) - 1)).bit_count()
        size = 4 * self.machine.banks
        for i in range(count):
            if result + i not in h.results:
                raise CannotTellError(f"{who.what}: reads what nothing has written")
            terms = h.results[result + i]
            halves = np.stack([mix("low", terms), mix("high", terms)], axis=1).reshape(-1)
            core.local.write(span(base + address + (i * channels + rank) * size, size), halves, who)
