"""One order in which the streams of an entry may run, and everything that is executed in it.

Cores come from their effects (``streams.py``); controllers are followed here, since cores set their registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from equivalence.order import SyncTrace
from equivalence.streams import CannotTellError, Effect, signed
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import LoadedProgram
from pimc.targets import Target

_LIMIT = 1 << 22
Command: TypeAlias = tuple[str, tuple[int, ...]]
_Stream: TypeAlias = Sequence[Command]


@dataclass(frozen=True)
class Machine:
    """The sizes that matter, and how agents and semaphores are numbered: cores first, then controllers."""

    cores: int
    channels: int
    banks: int
    columns: int
    row_bytes: int
    column_bytes: int
    local_bytes: int
    lanes: int
    array_rows: int
    tcu_rows: int
    tcu_columns: int

    @classmethod
    def of(cls, target: Target) -> Machine:
        """Those of a target."""
        hbm = target.hbm
        return cls(
            target.cores.count, target.pchs_per_core, hbm.banks, hbm.columns, hbm.row_bytes, hbm.column_bytes,
            target.local_bytes, target.pim_unit.lanes, target.pim_unit.rows, target.tcu.rows, target.tcu.columns,
        )  # fmt: skip

    @property
    def agents(self) -> int:
        """Cores and controllers."""
        return self.cores * (1 + self.channels)

    def controller(self, core: int, q: int) -> int:
        """The agent that is pseudo-channel ``q`` of a core's tile."""
        return self.cores + core * self.channels + q

    def receivers(self, effect: Effect) -> range:
        """The cores a message goes to."""
        named = effect.named
        if effect.mnemonic.startswith("nsend"):
            return range(named["core"], named["core"] + 1)
        return range(named["group_base"], named["group_base"] + named["group_size"])


@dataclass(frozen=True, slots=True)
class Step:
    """Something an agent executed; a controller's registers are replaced by their contents where ``registers`` says."""

    agent: int
    effect: Effect
    registers: tuple[int, ...] = ()


@dataclass
class _Controller:
    """A controller following its group's stream."""

    agent: int
    core: int
    q: int
    stream: _Stream
    registers: list[int] = field(default_factory=lambda: [0] * 32)
    pc: int = 0
    loops: list[list[int]] = field(default_factory=list)  # [start, times left]


class Schedule:
    """Runs the agents of an entry in turn; see ``steps`` and ``sync``."""

    def __init__(self, program: LoadedProgram, entry: str, machine: Machine, effects: dict[int, list[Effect]]) -> None:
        """Run until everyone has halted; raises CannotTellError if that does not happen."""
        self.machine = machine
        self.steps: list[Step] = []
        self.sync = SyncTrace(machine.agents, 32 * machine.agents)
        self._levels = [0] * (32 * machine.agents)
        self._effects = effects
        self._position = dict.fromkeys(effects, 0)
        self._controllers = self._make_controllers(program, entry)
        self._blocked: dict[int, tuple[int, int]] = {}
        self._ready = [*effects, *self._controllers]
        while self._ready:
            agent = self._ready.pop()
            self._run_controller(self._controllers[agent]) if agent in self._controllers else self._run_core(agent)
        if self._blocked:
            raise CannotTellError(f"agents {sorted(self._blocked)[:4]} wait for ever")

    def _make_controllers(self, program: LoadedProgram, entry: str) -> dict[int, _Controller]:
        found: dict[int, _Controller] = {}
        for group, tensor in program.entries[entry].groups.items():
            decoded = program.decoded[tensor]
            stream = [
                (HBM_ISA.instructions[op].mnemonic, tuple(values[: len(HBM_ISA.instructions[op].operands)]))
                for op, values in zip(decoded.op, decoded.operands.tolist(), strict=True)
            ]
            for q in range(self.machine.channels):
                agent = self.machine.controller(group, q)
                found[agent] = _Controller(agent, group, q, stream)
        return found

    def _raise(self, semaphore: int) -> None:
        self._levels[semaphore] += 1
        agent = semaphore // 32
        if agent in self._blocked:
            waited, count = self._blocked[agent]
            if waited == semaphore and self._levels[semaphore] >= count:
                del self._blocked[agent]
                self._ready.append(agent)

    def _send(self, agent: int, semaphores: list[int]) -> None:
        self.sync.send(agent, semaphores)
        for semaphore in semaphores:
            self._raise(semaphore)

    def _wait(self, agent: int, semaphore: int, count: int) -> bool:
        """Take from a semaphore; False if the agent must wait."""
        if self._levels[semaphore] < count:
            self._blocked[agent] = (semaphore, count)
            return False
        self._levels[semaphore] -= count
        self.sync.wait(agent, semaphore, count)
        return True

    def _note(self, agent: int, effect: Effect, registers: tuple[int, ...] = ()) -> None:
        self.steps.append(Step(agent, effect, registers))
        if len(self.steps) > _LIMIT:
            raise CannotTellError(f"more than {_LIMIT} steps")

    def _run_core(self, core: int) -> None:
        effects = self._effects[core]
        while self._position[core] < len(effects):
            effect = effects[self._position[core]]
            if effect.mnemonic == "wait" and not self._wait(
                core, core * 32 + effect.values[0], max(0, effect.values[1] + effect.values[2])
            ):
                return
            self._note(core, effect)
            if effect.mnemonic == "sigh":
                agents = [self.machine.controller(core, q) for q in range(self.machine.channels)]
                self._send(core, [agent * 32 + effect.values[0] for agent in agents])
            elif effect.mnemonic == "hset":
                for q in range(self.machine.channels):
                    agent = self.machine.controller(core, q)
                    if agent in self._controllers:
                        self._controllers[agent].registers[effect.values[0]] = effect.values[1]
            elif effect.mnemonic.startswith(("nsend", "nmcast")):
                named = effect.named
                self._send(core, [receiver * 32 + named["sem"] for receiver in self.machine.receivers(effect)])
            self._position[core] += 1

    def _run_controller(self, h: _Controller) -> None:
        while True:
            if not 0 <= h.pc < len(h.stream):
                raise CannotTellError(f"controller {h.agent} leaves its stream")
            name, values = h.stream[h.pc]
            if name == "wait" and not self._wait(h.agent, h.agent * 32 + values[0], values[1]):
                return
            if not self._command(h, name, values):
                return

    def _command(self, h: _Controller, name: str, values: tuple[int, ...]) -> bool:
        """Execute a command; False at the end of the stream."""
        operands = HBM_ISA.instructions[HBM_ISA.index[name]].operands
        if operands and operands[0].name == "mask" and not values[0] >> h.q & 1:
            h.pc += 1
            return True
        contents = tuple(
            h.registers[v] if o.kind.value == "register" else v for o, v in zip(operands, values, strict=True)
        )
        self._note(h.agent, Effect(name, values, (), h.pc), contents)
        h.pc += 1
        if name == "halt":
            return False
        if name == "set":
            h.registers[values[0]] = signed(values[1])
        elif name == "add":
            h.registers[values[0]] = signed(contents[1] + values[2])
        elif name == "addr":
            h.registers[values[0]] = signed(contents[1] + contents[2])
        elif name == "sig":
            self._send(h.agent, [h.core * 32 + values[0]])
        elif name == "loop":
            self._loop(h, signed(contents[0] + values[1]))
        elif name == "endl":
            if not h.loops:
                raise CannotTellError(f"controller {h.agent} ends a loop that it has not begun")
            h.loops[-1][1] -= 1
            if h.loops[-1][1] > 0:
                h.pc = h.loops[-1][0]
            else:
                h.loops.pop()
        return True

    def _loop(self, h: _Controller, times: int) -> None:
        if times > 0:
            h.loops.append([h.pc, times])
            return
        depth = 1
        while depth:
            if h.pc >= len(h.stream):
                raise CannotTellError(f"controller {h.agent} skips a loop without an end")
            depth += {"loop": 1, "endl": -1}.get(h.stream[h.pc][0], 0)
            h.pc += 1
