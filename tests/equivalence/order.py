"""Which signals a wait is sure to have seen, whatever the times are.

A semaphore counts; its one consumer waits for a number and takes it. Let a wait be the one at which the consumer has
taken ``taken`` signals in all. Hold the consumer there and let everyone else run as far as they can: ``sent`` signals
reach the semaphore (each sender's in the order it sent them). When the wait ends, ``taken`` of these have arrived, so
all but the last ``sent - taken`` of each sender are sure to have. The others may still be on their way, and order
nothing.

Control does not depend on data, every semaphore has one consumer, and nothing but waiting blocks: how far the others
get does not depend on the order in which they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass
class SyncTrace:
    """Sends and waits of every agent, in program order: (semaphore, count), the count negative for a send."""

    agents: int
    semaphores: int
    steps: list[list[tuple[int, int]]] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = [[] for _ in range(self.agents)]

    def send(self, agent: int, semaphores: Sequence[int]) -> None:
        """An agent raises semaphores by one each."""
        self.steps[agent] += [(semaphore, -1) for semaphore in semaphores]

    def wait(self, agent: int, semaphore: int, count: int) -> None:
        """An agent waits for a semaphore."""
        self.steps[agent].append((semaphore, count))


@dataclass
class Senders:
    """The signals of one semaphore by sender: where in each sender's steps they stand."""

    agents: list[int]
    positions: list[Ints]


@numba.njit(cache=False)
def _advance(first: Ints, semaphore: Ints, count: Ints, consumer: Ints, held: int, hold_at: int) -> Ints:
    """The position each agent reaches when ``held`` stops before step ``hold_at``."""
    agents = first.size - 1
    position = first[:-1].copy()
    level = np.zeros(consumer.size, np.int64)
    ready = np.arange(agents)
    waiting = np.zeros(agents, np.bool_)
    top = agents
    while top:
        top -= 1
        agent = ready[top]
        waiting[agent] = False
        at = position[agent]
        while at < first[agent + 1] and not (agent == held and at == hold_at):
            s = semaphore[at]
            if count[at] < 0:
                level[s] += 1
                other = consumer[s]
                if other >= 0 and waiting[other]:
                    place = position[other]
                    if semaphore[place] == s and level[s] >= count[place]:
                        waiting[other] = False
                        ready[top] = other
                        top += 1
            elif level[s] >= count[at]:
                level[s] -= count[at]
            else:
                waiting[agent] = True
                break
            at += 1
        position[agent] = at
    return position


@dataclass(frozen=True)
class SeenSignals:
    """For each wait of an agent, in order: how many of each sender's signals to that semaphore have surely arrived."""

    waits: list[list[list[tuple[int, int]]]]

    @classmethod
    def of(cls, trace: SyncTrace) -> SeenSignals:
        """Decide it for every wait of a trace."""
        lengths = [len(steps) for steps in trace.steps]
        first = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.array([step for steps in trace.steps for step in steps], np.int64).reshape(-1, 2)
        semaphore, count = np.ascontiguousarray(flat[:, 0]), np.ascontiguousarray(flat[:, 1])
        agent_of = np.repeat(np.arange(trace.agents), lengths)
        consumer = np.full(trace.semaphores, -1, np.int64)
        takes = count >= 0
        consumer[semaphore[takes]] = agent_of[takes]
        senders = _senders(trace.semaphores, semaphore, count, agent_of)
        waits: list[list[list[tuple[int, int]]]] = [[] for _ in range(trace.agents)]
        taken = np.zeros(trace.semaphores, np.int64)
        for at in np.flatnonzero(takes):
            agent, s = int(agent_of[at]), int(semaphore[at])
            taken[s] += count[at]
            reached = _advance(first, semaphore, count, consumer, agent, int(at))
            waits[agent].append(_sure(senders[s], reached, int(taken[s])))
        return cls(waits)


def _senders(semaphores: int, semaphore: Ints, count: Ints, agent_of: Ints) -> list[Senders]:
    found = [Senders([], []) for _ in range(semaphores)]
    sends = np.flatnonzero(count < 0)
    for s in np.unique(semaphore[sends]):
        places = sends[semaphore[sends] == s]
        for agent in np.unique(agent_of[places]):
            found[s].agents.append(int(agent))
            found[s].positions.append(places[agent_of[places] == agent])
    return found


def _sure(senders: Senders, reached: Ints, taken: int) -> list[tuple[int, int]]:
    """(sender, how many of its signals) for those of whom some have surely arrived."""
    sent = [
        int(np.searchsorted(places, reached[agent]))
        for agent, places in zip(senders.agents, senders.positions, strict=True)
    ]
    late = sum(sent) - taken
    return [(agent, n - late) for agent, n in zip(senders.agents, sent, strict=True) if n > late]
