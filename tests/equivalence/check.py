"""Compare two programs: the same effects, or the same terms in everything that outlasts a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from equivalence.commute import only_commuted
from equivalence.memory import span
from equivalence.order import SeenSignals
from equivalence.replay import Dram, Recording, Replay, Row
from equivalence.schedule import Machine, Schedule
from equivalence.streams import CannotTellError, Effect, Inputs, core_effects, input_words
from equivalence.terms import Terms
from equivalence.tile import TileReplay
from pimc.isa.program import DTYPE_BYTES, LoadedProgram
from pimc.targets import Target


@dataclass(frozen=True)
class Result:
    """What a run leaves: the terms of the outputs (by core), and of every row of HBM that has been written so far."""

    outputs: dict[int, Terms]
    rows: dict[Row, Terms]
    recording: Recording

    def differs(self, other: Result) -> str | None:
        """In what it differs from ``other``; cores and rows that ``self`` does not have are not compared."""
        if any(not np.array_equal(terms, other.outputs[core]) for core, terms in self.outputs.items()):
            return "an output is another term"
        if self.rows.keys() != other.rows.keys():
            return "other rows of HBM are written"
        if any(not np.array_equal(terms, other.rows[row]) for row, terms in self.rows.items()):
            return "a row of HBM holds other terms"
        return None


@dataclass
class Reference:
    """A program executed on terms for a series of inputs, HBM kept between them; computed when first asked for."""

    program: LoadedProgram
    target: Target
    entry: str
    inputs: Sequence[Inputs]
    machine: Machine = field(init=False)
    _effects: dict[tuple[int, int], list[Effect]] = field(default_factory=dict)
    _results: list[Result] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Machine.of(self.target)

    def effects(self, run: int, core: int) -> list[Effect]:
        """What a core does in a run."""
        key = (run, core)
        if key not in self._effects:
            self._effects[key] = core_effects(self.program, self.entry, core, self.inputs[run])
        return self._effects[key]

    def dram(self, run: int) -> Dram:
        """HBM before a run."""
        rows = dict(self.result(run - 1).rows) if run else {}
        return Dram(dict(self.program.images), self.machine.row_bytes // 2, rows)

    def words(self, run: int) -> dict[int, dict[int, int]]:
        """What the host writes before a run, by core."""
        cores = range(self.machine.cores)
        return {core: input_words(self.program, self.entry, core, self.inputs[run]) for core in cores}

    def result(self, run: int) -> Result:
        """What a run leaves."""
        while len(self._results) <= run:
            at = len(self._results)
            self._results.append(self.replay(at, self.program, self.dram(at), {}))
        return self._results[run]

    def replay(self, run: int, program: LoadedProgram, dram: Dram, changed: dict[int, list[Effect]]) -> Result:
        """Execute ``program`` for the inputs of a run; ``changed``: the effects of cores that differ."""
        cores = program.entries[self.entry].cores
        effects = {core: changed.get(core) or self.effects(run, core) for core in cores}
        schedule = Schedule(program, self.entry, self.machine, effects)
        recording = Recording(schedule.steps, SeenSignals.of(schedule.sync))
        replay = Replay(self.machine, recording, dram, self.words(run))
        replay.run()
        return Result(self._outputs(replay), dict(dram.written), recording)

    def replay_tile(self, run: int, core: int, effects: list[Effect]) -> str | None:
        """Execute one tile of a run with other effects; why it is not the same, or None."""
        expected = self.result(run)
        channels = range(core * self.machine.channels, (core + 1) * self.machine.channels)

        def own(rows: dict[Row, Terms]) -> dict[Row, Terms]:
            return {row: terms for row, terms in rows.items() if row[0] in channels}

        try:
            replay = TileReplay(self.machine, expected.recording, self.dram(run), self.words(run), core, effects)
            replay.run()
        except CannotTellError as error:
            return str(error)
        found = Result(self._outputs(replay), own(replay.dram.written), replay.recording)
        return found.differs(replace(expected, rows=own(expected.rows)))

    def _outputs(self, replay: Replay) -> dict[int, Terms]:
        found: dict[int, list[Terms]] = {}
        for port in self.program.entries[self.entry].outputs:
            for piece in port.pieces:
                if piece.core in replay.cores:
                    at = span(piece.address, piece.count * DTYPE_BYTES[port.dtype])
                    found.setdefault(piece.core, []).append(replay.cores[piece.core].local.terms[at])
        return {core: np.concatenate(terms) for core, terms in found.items()}


def _changed_effects(reference: Reference, program: LoadedProgram) -> list[dict[int, list[Effect]]]:
    """For each run, the effects of the cores that do something else than the reference's."""
    changed: list[dict[int, list[Effect]]] = [{} for _ in reference.inputs]
    for core, tensor in program.entries[reference.entry].cores.items():
        if np.array_equal(program.code[tensor], reference.program.code[tensor]):
            continue
        for run, inputs in enumerate(reference.inputs):
            effects = core_effects(program, reference.entry, core, inputs)
            expected = reference.effects(run, core)
            if effects != expected and not only_commuted(reference.machine, expected, effects):
                changed[run][core] = effects
    return changed


def same_by_tiles(reference: Reference, program: LoadedProgram) -> bool:
    """Whether looking at one tile at a time shows that ``program`` computes what the reference does (quick)."""
    groups = program.entries[reference.entry].groups.values()
    if not all(np.array_equal(program.code[tensor], reference.program.code[tensor]) for tensor in groups):
        return False
    try:
        changed = _changed_effects(reference, program)
    except CannotTellError:
        return False
    tiles = [(run, core, effects) for run, cores in enumerate(changed) for core, effects in cores.items()]
    return not any(reference.replay_tile(*tile) for tile in tiles)


def difference(reference: Reference, program: LoadedProgram) -> str | None:
    """None if ``program`` computes what the reference does, for any data and timing; else why that cannot be said."""
    if same_by_tiles(reference, program):
        return None
    try:
        return _whole_difference(reference, program, _changed_effects(reference, program))
    except CannotTellError as error:
        return str(error)


def _whole_difference(
    reference: Reference, program: LoadedProgram, changed: list[dict[int, list[Effect]]]
) -> str | None:
    """Execute the whole machine for every run, and compare what is left.

    Rows of HBM may hold other terms, those of a core that works for nobody: the last run reads what the others left,
    and must give the same outputs.  What a single run leaves must be the same.
    """
    dram = reference.dram(0)
    for run, cores in enumerate(changed):
        found, expected = reference.replay(run, program, dram, cores), reference.result(run)
        if len(changed) > 1:
            found, expected = replace(found, rows={}), replace(expected, rows={})
        if reason := found.differs(expected):
            return f"run {run}: {reason}"
    return None
