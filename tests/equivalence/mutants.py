"""Damaged copies of a program, and what comes of running them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from equivalence.check import Reference, difference, same_by_tiles
from equivalence.streams import Inputs
from pimc.diagnostics import PimcError
from pimc.isa.codec import encode
from pimc.isa.program import LoadedProgram, Program
from pimc.isa.spec import InstructionSet, Operand
from pimc.isa.validate import validate_program
from pimc.runtime_sim import Machine, RunResult
from pimc.runtime_sim.run_limits import RunLimits
from pimc.targets import Target

#: What waits for, or tells, another agent: dropping one must show.
SYNCHRONISATION = {
    "core": ("wait", "sigh", "hset", "nsend", "nsend2", "nmcast", "nmcast2"),
    "hbm": ("wait", "sig"),
}
#: A damaged program may run on; beyond so many times the cycles of the whole one it is stopped.
PATIENCE = 8


@dataclass(frozen=True)
class Mutant:
    """Words to replace in a code tensor: (pc, word); ``what`` describes it to people."""

    tensor: str
    words: tuple[tuple[int, int], ...]
    what: str

    def apply(self, program: LoadedProgram) -> Program:
        """The damaged program, without the locations of the damaged stream."""
        code = np.array(program.code[self.tensor])
        for pc, word in self.words:
            code[pc] = word
        locations = {name: found for name, found in program.locations.items() if name != self.tensor}
        return replace(program, code={**program.code, self.tensor: code}, locations=locations)


def tensors(program: LoadedProgram, entry: str) -> list[str]:
    """The code tensors of an entry, each once."""
    return list(dict.fromkeys(tensor for _, _, tensor in program.entries[entry].streams()))


def _describe(program: LoadedProgram, tensor: str, pc: int) -> str:
    decoded, isa = program.decoded[tensor], program.stream_isa(tensor)
    instruction = isa.instructions[decoded.op[pc]]
    values = ", ".join(str(value) for value in decoded.operands[pc][: len(instruction.operands)])
    return f"{tensor} pc {pc}: {instruction.mnemonic} {values}"


def drops(program: LoadedProgram, entry: str) -> Iterator[Mutant]:
    """Each wait and signal of every stream replaced by a nop."""
    for tensor in tensors(program, entry):
        isa = program.stream_isa(tensor)
        nop = encode(isa, "nop", ())
        wanted = [isa.index[name] for name in SYNCHRONISATION[tensor.split("/")[2]]]
        for pc in np.flatnonzero(np.isin(program.decoded[tensor].op, wanted)).tolist():
            yield Mutant(tensor, ((pc, nop),), f"without {_describe(program, tensor, pc)}")


def _places(program: LoadedProgram, entry: str) -> tuple[list[str], np.ndarray]:
    """The tensors, and how many words come before the end of each: every word is as likely."""
    names = tensors(program, entry)
    return names, np.cumsum([len(program.code[name]) for name in names])


def _other_value(operand: Operand, old: int, random: np.random.Generator) -> int:
    """Another value of an operand: a neighbour, one with a bit flipped, or any."""
    candidates = [old - 1, old + 1, old ^ 1 << int(random.integers(operand.field.width))]
    candidates.append(int(random.integers(operand.minimum, operand.maximum + 1)))
    allowed = [value for value in candidates if operand.minimum <= value <= operand.maximum and value != old]
    return allowed[int(random.integers(len(allowed)))] if allowed else old ^ 1


def operand_changes(program: LoadedProgram, entry: str, count: int, random: np.random.Generator) -> Iterator[Mutant]:
    """``count`` words with one operand changed."""
    names, ends = _places(program, entry)
    while count:
        at = int(random.integers(ends[-1]))
        index = int(np.searchsorted(ends, at, side="right"))
        tensor, pc = names[index], at - int(ends[index - 1] if index else 0)
        isa: InstructionSet = program.stream_isa(tensor)
        decoded = program.decoded[tensor]
        instruction = isa.instructions[decoded.op[pc]]
        if not instruction.operands:
            continue
        values = decoded.operands[pc][: len(instruction.operands)].tolist()
        changed = int(random.integers(len(values)))
        values[changed] = _other_value(instruction.operands[changed], values[changed], random)
        word = encode(isa, instruction.mnemonic, values)
        name = instruction.operands[changed].name
        yield Mutant(tensor, ((pc, word),), f"{_describe(program, tensor, pc)} with {name} {values[changed]}")
        count -= 1


def swaps(program: LoadedProgram, entry: str, count: int, random: np.random.Generator) -> Iterator[Mutant]:
    """``count`` pairs of different words of a stream exchanged: every second pair are neighbours."""
    names, ends = _places(program, entry)
    while count:
        at = int(random.integers(ends[-1]))
        index = int(np.searchsorted(ends, at, side="right"))
        tensor, first = names[index], at - int(ends[index - 1] if index else 0)
        words = program.code[tensor]
        second = first + 1 if count % 2 else int(random.integers(len(words)))
        if second >= len(words) or words[first] == words[second]:
            continue
        exchange = ((first, int(words[second])), (second, int(words[first])))
        what = f"{_describe(program, tensor, first)} exchanged with {_describe(program, tensor, second)}"
        yield Mutant(tensor, exchange, what)
        count -= 1


@dataclass(frozen=True)
class _State:
    """What HBM holds after some runs: rows of all banks, by pseudo-channel, and which columns are written."""

    images: Mapping[int, NDArray[np.uint16]]
    written: NDArray[np.uint32]

    @classmethod
    def of(cls, machine: Machine) -> _State:
        """That of a machine."""
        written = machine.written_columns().copy()
        channels, rows, _ = written.shape
        images = {p: np.stack([machine.hbm_row(p, row) for row in range(rows)]) for p in range(channels)}
        return cls(images, written)

    def machine(self, program: LoadedProgram, target: Target) -> Machine:
        """A machine in this state, with a program's code."""
        machine = Machine(replace(program, images=self.images), target)
        machine.written_columns()[...] = self.written
        return machine


class Trial:
    """A program's runs for a series of inputs and sets of weights, and what damaged copies do differently."""

    def __init__(
        self,
        programs: Sequence[LoadedProgram],
        target: Target,
        entry: str,
        before: Sequence[Inputs],
        inputs: Sequence[Inputs],
        more: Sequence[Inputs] = (),
    ) -> None:
        """``programs`` have the same code and different images; whole ones run on ``before``, damaged on ``inputs``.

        ``more`` is for damage that ``inputs`` do not show and the checker cannot explain: the last bit of a constant
        that rounding mostly hides, a maximum that another one hides.  The first of them comes behind ``inputs``: the
        checker lets it read what those left in memory.
        """
        self.target, self.entry, self.inputs, self.more = target, entry, inputs, more
        self._states: list[_State] = []
        self._expected: list[list[RunResult]] = []
        for program in programs:
            if any(not np.array_equal(program.code[name], programs[0].code[name]) for name in program.code):
                raise ValueError("the programs differ in more than their weights")
            machine = Machine(program, target)
            for each in before:
                machine.run(entry, each)
            self._states.append(_State.of(machine))
            self._expected.append([machine.run(entry, each) for each in inputs])
        self.program = replace(programs[0], images=self._states[0].images)
        self.reference = Reference(self.program, target, entry, [*inputs, *more[:1]])

    def outcome(self, mutant: Mutant) -> tuple[str, str]:
        """What shows the damage, and details; "unexplained" if nothing does and the checker cannot say why.

        The quick ways come first: a run, a look at the tile concerned, all other runs, all tiles.
        """
        try:
            damaged = validate_program(mutant.apply(self.program))
            runs = self._runs(damaged)
            if shown := next(runs):
                return shown
            if same_by_tiles(self.reference, damaged):
                return "equivalent", "by its tile"
            if shown := next((found for found in runs if found), None):
                return shown
        except PimcError as error:
            return f"error: {type(error).__name__}", str(error)
        reason = difference(self.reference, damaged)
        if reason is None:
            return "equivalent", ""
        return self._searched(damaged) or ("unexplained", reason)

    def _searched(self, damaged: LoadedProgram) -> tuple[str, str] | None:
        """What ``more`` inputs show, the whole and the damaged program side by side."""
        for weights, state in enumerate(self._states):
            whole, other = state.machine(self.program, self.target), state.machine(damaged, self.target)
            for run, inputs in enumerate([*self.inputs, *self.more]):
                expected = whole.run(self.entry, inputs)
                try:
                    found = other.run(self.entry, inputs)
                except PimcError as error:
                    return f"error: {type(error).__name__}", str(error)
                if not _same_outputs(expected, found):
                    return "changed result", f"weights {weights}, run {run}"
        return None

    def _runs(self, damaged: LoadedProgram) -> Iterator[tuple[str, str] | None]:
        """What each run shows, over all inputs with the first weights, then with the next."""
        for weights, state in enumerate(self._states):
            machine = state.machine(damaged, self.target)
            for run, (inputs, expected) in enumerate(zip(self.inputs, self._expected[weights], strict=True)):
                found = machine.run(self.entry, inputs, RunLimits(max_cycles=PATIENCE * expected.cycles))
                where = f"weights {weights}, run {run}"
                if not _same_outputs(found, expected):
                    yield "changed result", where
                elif found.cycles != expected.cycles:
                    yield "changed time", f"{where}: {found.cycles} cycles, not {expected.cycles}"
                else:
                    yield None

    def contradicted(self, mutant: Mutant) -> bool:
        """Whether the checker calls a program equivalent (asked of one whose result is another)."""
        return difference(self.reference, validate_program(mutant.apply(self.program))) is None


def _same_outputs(a: RunResult, b: RunResult) -> bool:
    return all(np.array_equal(a.outputs[name].view(np.uint8), b.outputs[name].view(np.uint8)) for name in b.outputs)
