"""One tile (a core and its controllers) executed again with other effects, the rest as it was recorded.

If the tile signals as it did, sends the same messages with clocks that know no less, and leaves the same terms, then
nothing else can tell that its core does something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from equivalence.commute import FIXED
from equivalence.replay import Dram, Message, Recording, Replay, Signal
from equivalence.schedule import Machine, Step
from equivalence.streams import CannotTellError, Effect
from equivalence.units import Core


class TileReplay(Replay):
    """Executes one tile; afterwards ``cores`` holds its core and ``dram`` its rows."""

    def __init__(
        self,
        machine: Machine,
        recording: Recording,
        dram: Dram,
        inputs: Mapping[int, Mapping[int, int]],
        core: int,
        effects: Sequence[Effect],
    ) -> None:
        """``recording``: of the whole machine; ``effects``: what the core does instead."""
        own = Recording(_steps(machine, recording.steps, core, effects), recording.seen)
        super().__init__(machine, own, dram, inputs, range(core, core + 1))
        self._whole, self._core = recording, core
        self._agents = {core, *(machine.controller(core, q) for q in range(machine.channels))}
        self._delivered: dict[int, int] = {}

    def _signals(self, sender: int, semaphore: int) -> list[Signal]:
        recording = self.recording if sender in self._agents else self._whole
        return recording.sent[sender, semaphore]

    def _step(self, step: Step) -> None:
        if step.agent in self._agents:
            super()._step(step)
        elif step.agent < self.machine.cores and step.effect.mnemonic.startswith(("nsend", "nmcast")):
            number = self._delivered[step.agent] = self._delivered.get(step.agent, 0) + 1
            message = self._whole.messages[step.agent][number - 1]
            self._deliver(step.agent, message, f"core {step.agent}, pc {step.effect.pc}: {step.effect.mnemonic}")

    def _message(self, core: Core, effect: Effect) -> None:
        super()._message(core, effect)
        number = len(self.recording.messages[core.number]) - 1
        message, expected = (every.messages[core.number][number] for every in (self.recording, self._whole))
        if not _same(message, expected):
            raise CannotTellError(f"{core.who.what}: another message")
        if (message.signal.clock < expected.signal.clock).any():
            raise CannotTellError(f"{core.who.what}: the message comes before what it came after")


def _same(a: Message, b: Message) -> bool:
    places = (np.r_[a.at] if isinstance(a.at, slice) else a.at, np.r_[b.at] if isinstance(b.at, slice) else b.at)
    return a.receivers == b.receivers and np.array_equal(*places) and np.array_equal(a.terms, b.terms)


def _tells_others(machine: Machine, effect: Effect) -> tuple[object, ...]:
    """What other agents notice of an effect that keeps its place, messages' contents aside."""
    if effect.mnemonic == "wait":
        return ("wait", effect.values[0], effect.values[1] + effect.values[2])
    if effect.mnemonic.startswith(("nsend", "nmcast")):
        return ("message", machine.receivers(effect), effect.named["sem"])
    return (effect.mnemonic, effect.values)


def _steps(machine: Machine, steps: Sequence[Step], core: int, effects: Sequence[Effect]) -> list[Step]:
    """The steps with those of the core replaced: each that keeps its place brings those before it."""
    rest = iter(effects)
    found: list[Step] = []
    for step in steps:
        if step.agent != core:
            found.append(step)
        elif step.effect.mnemonic in FIXED:
            for effect in rest:
                found.append(Step(core, effect))
                if effect.mnemonic in FIXED:
                    if _tells_others(machine, effect) != _tells_others(machine, step.effect):
                        raise CannotTellError(f"core {core}, pc {effect.pc}: signals in another order")
                    break
            else:
                raise CannotTellError(f"core {core}: fewer signals")
    if any(effect.mnemonic in FIXED for effect in rest):
        raise CannotTellError(f"core {core}: more signals")
    return found
