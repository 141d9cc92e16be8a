"""A compiled program, ready to run: arrays in and arrays out, or a prompt in and text out.

Everything here works on the binary and the simulator; no compiler, no model library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pimc.diagnostics import InputError, NumericsError, UninitialisedReadError, UsageError
from pimc.generation import Conversation, Generation, Wishes, answer, check_entries
from pimc.isa.container import write_program
from pimc.isa.program import LoadedProgram
from pimc.isa.validate import check_against_target
from pimc.ports import PortInfo, describe, from_port, signature_of, to_port
from pimc.runtime_sim import Machine, RunResult
from pimc.runtime_sim.caches import check_positions
from pimc.runtime_sim.forking import ForkSafeLock
from pimc.runtime_sim.pool import MachinePool
from pimc.runtime_sim.results import overflow_message
from pimc.runtime_sim.run_limits import RunLimits
from pimc.sampling import Sampling
from pimc.targets import Target
from pimc.text import ModelInfo, TextCodec

Array = NDArray[np.generic]
#: What calling an executable gives: an array, or several.
Outputs: TypeAlias = "Array | tuple[Array, ...]"
_DEFAULT_ENTRY = "main"
_UNWRITTEN = (
    "run the positions before this one first, or take the caches for filled: `pimc run --assume-cache N`, or"
    " Executable.assume_cache(N)"
)
_OF_THIS_PROCESS = frozenset({"_machines", "_codec", "_session", "_making"})
_FS_PER_NS = 10**6


class Executable:
    """A program and the simulated machine it runs on.

    The machine's HBM keeps its contents from run to run (KV caches live there); :meth:`reset` starts afresh.

    Several threads may use it.  Runs of a program that keeps a state in HBM wait for each other, and :meth:`generate`
    for whole answers; :meth:`session` holds others off for as long as wanted.  Runs of a program without a state are
    independent and run at once.  A copy that pickle makes, for another process, starts from the memory images; a
    forked process has the state of the moment.
    """

    def __init__(
        self, program: LoadedProgram, target: Target, *, checks: bool = True, strict_numerics: bool = False
    ) -> None:
        """Put ``program`` on ``target``.

        Args:
            checks: whether runs look for races and for reads of what nothing has written (addresses are always
                checked).
            strict_numerics: whether a run fails when a result leaves the range of fp16 though its operands were
                finite; else it is counted only (``RunResult.overflows``).

        ``runs`` grows with every run and reset: who keeps something in the caches sees whether others came between.

        Raises:
            TargetError: it does not fit; the message names what.
        """
        check_against_target(program, target)
        self.program = program
        self.target = target
        self.checks = checks
        self.strict_numerics = strict_numerics
        self._machines: dict[bool, MachinePool] = {}
        self._codec: TextCodec | None = None
        self._assumed = 0
        self.runs = 0
        self._session, self._making = ForkSafeLock(), ForkSafeLock()

    def __getstate__(self) -> dict[str, object]:
        """What pickle takes: everything but the machines, which are made of addresses in this process."""
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, object]) -> None:
        """A machine of its own."""
        self.__dict__.update(state)
        self._machines, self._codec = {}, None
        self._session, self._making = ForkSafeLock(), ForkSafeLock()

    def __repr__(self) -> str:
        model = f"{self.name[:80]!r} " if self.name else ""
        return f"<Executable {model}for {self.target.name}: {', '.join(self.entries)}>"

    def __call__(self, *arrays: ArrayLike | Mapping[str, ArrayLike], entry: str | None = None) -> Outputs:
        """Execute an entry point as :meth:`run` does; return its output, or all in order where there are several."""
        outputs = tuple(self.run(*arrays, entry=entry).outputs.values())
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def name(self) -> str | None:
        """The name of the model; None where the binary does not say it."""
        name = (self.program.model or {}).get("name")
        return name if isinstance(name, str) else None

    @property
    def inputs(self) -> Mapping[str, tuple[PortInfo, ...]]:
        """The inputs of each entry point, in order: names, element types, shapes, and ranges of integers."""
        return {name: describe(self.program.model, name, ports)[0] for name, ports in self.program.entries.items()}

    @property
    def outputs(self) -> Mapping[str, tuple[PortInfo, ...]]:
        """The outputs of each entry point, in order."""
        return {name: describe(self.program.model, name, ports)[1] for name, ports in self.program.entries.items()}

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of the program's entry points."""
        return tuple(self.program.entries)

    @property
    def clock_ghz(self) -> float:
        """The core clock: cycles a nanosecond."""
        return _FS_PER_NS / self.target.clock.core_period_fs

    def reset(self) -> None:
        """Forget the state of the machine: the next run starts from the binary's memory images."""
        with self._session, self._making:
            self._machines.clear()
            self._assumed = 0
            self.runs += 1

    def assume_cache(self, positions: int) -> None:
        """Take the first ``positions`` positions of the caches for filled, so that a later one can be run or timed.

        What nothing has written is zeros.  The time of a run does not depend on the contents.

        Raises:
            InputError: the program has no caches, or they hold fewer positions.
        """
        check_positions(self.program.caches, positions)
        with self._session, self._making:
            self._assumed = max(self._assumed, positions)
            for pool in self._machines.values():
                pool.first.assume_cache(positions)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep other threads' runs and resets of a program with a state waiting until the block ends."""
        with self._session:
            yield

    def run(
        self,
        *arrays: ArrayLike | Mapping[str, ArrayLike],
        entry: str | None = None,
        timing_only: bool = False,
        max_cycles: int | None = None,
        timeout: float | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> RunResult:
        """Execute one entry point on arrays, by name in one mapping or in the order of the entry's inputs.

        Arrays are those of the model (f32, i64, bool ...): they are converted to what the hardware holds, and outputs
        come back in the model's types.  A binary without metadata takes and gives f16 and i32.

        Args:
            arrays: one mapping from input name to array, or one array an input.
            entry: the entry point; may be left out if the program has one, or one called "main".
            timing_only: simulate the time without the data; there are no outputs then.
            max_cycles: simulated cycles after which the run is stopped.
            timeout: seconds of wall time after which it is stopped (compiling the simulator, once, is not counted).
            on_progress: told the simulated cycles so far, some 20 times a second.

        Returns:
            outputs by name, cycles, time and statistics.

        Raises:
            InputError: an unknown entry, a missing or surplus input, a wrong shape or kind, a value beyond fp16 or i32.
            NumericsError: with ``strict_numerics``, a result left the range of fp16 though its operands were finite.
            RunLimitError: ``max_cycles`` or ``timeout`` is reached; the message says where each stream was.
            SimError: the program did what the hardware does not allow.

        A run that is stopped, or interrupted, leaves in HBM what it has written so far.
        """
        return self._run(arrays, entry, timing_only, RunLimits(max_cycles, timeout, on_progress))

    def _run(
        self,
        arrays: tuple[ArrayLike | Mapping[str, ArrayLike], ...],
        entry: str | None,
        timing_only: bool,
        limits: RunLimits,
    ) -> RunResult:
        if not timing_only:
            self.program.require_images()
        name = self.entry(entry)
        ports = self.program.entries[name]
        signature = signature_of(self.program.model, name, ports)
        given = self._named(name, [port.name for port in signature.inputs], arrays)
        inputs = {
            port.name: to_port(given[model.name], model, port)
            for model, port in zip(signature.inputs, ports.inputs, strict=True)
        }
        pool = self._pool(timing_only)
        try:
            with self._session if pool.keeps_state else nullcontext(), pool.borrowed() as machine:
                self.runs += 1
                result = machine.run(name, inputs, limits)
        except UninitialisedReadError as error:
            if self.program.caches and error.hint is None:
                error.hint = _UNWRITTEN
            raise
        outputs = {
            model.name: from_port(result.outputs[port.name], model)
            for model, port in zip(signature.outputs, ports.outputs, strict=True)
        }
        if self.strict_numerics and result.overflows:
            raise NumericsError(overflow_message(result.overflows), where=name)
        return replace(result, outputs={} if timing_only else outputs)

    def generate(
        self,
        prompt: str,
        *,
        chat: bool = False,
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
        on_text: Callable[[str], None] | None = None,
        on_prefill: Callable[[int, int], None] | None = None,
        max_cycles: int | None = None,
        timeout: float | None = None,
    ) -> Generation:
        """Continue ``prompt`` until the model ends, or ``max_new_tokens``, or the cache is full.

        Args:
            prompt: the text to continue; with ``chat``, what the user says in the model's chat template.
            sampling: how tokens are chosen; greedy without.
            on_text: called with each new piece of text as it comes.
            on_prefill: called with how many tokens of the prompt are done, and how many there are.
            max_cycles: simulated cycles, of all runs together, after which generation is stopped.
            timeout: seconds of wall time after which it is stopped.

        Raises:
            InputError: not a language model, an empty or too long prompt, no chat template.
            RunLimitError: ``max_cycles`` or ``timeout`` is reached.
        """
        info, codec = self._language_model()
        limits = RunLimits(max_cycles, timeout)
        wishes = Wishes(max_new_tokens, sampling or Sampling(), limits, on_text, on_prefill)
        return answer(self, codec, info, codec.encode(prompt, chat=chat), wishes)

    def conversation(self, *, system: str | None = None, sampling: Sampling | None = None) -> Conversation:
        """A conversation with a language model, whose caches are kept from turn to turn.

        Args:
            system: what the model is told before the first turn, in its chat template.
            sampling: how tokens are chosen; greedy without.

        Raises:
            InputError: not a language model, or one without a chat template.
        """
        info, codec = self._language_model()
        if info.chat_template is None:
            raise InputError(f"model '{info.name}' has no chat template", hint="continue texts with `pimc generate`")
        return Conversation(self, codec, info, system=system, sampling=sampling or Sampling())

    def save(self, path: str | Path) -> None:
        """Write the binary (.pimx) to ``path``, whole or not at all."""
        write_program(path, self.program)

    def _pool(self, timing_only: bool) -> MachinePool:
        with self._making:
            if timing_only not in self._machines:
                machine = Machine(self.program, self.target, functional=not timing_only, checks=self.checks)
                if self._assumed:
                    machine.assume_cache(self._assumed)
                self._machines[timing_only] = MachinePool(machine)
            return self._machines[timing_only]

    def entry(self, name: str | None = None) -> str:
        """The entry point of that name; without one, the only one, or "main".

        Raises:
            InputError: there is no such entry point.
            UsageError: no name given, and several to choose from.
        """
        known = ", ".join(self.entries)
        if name is None:
            if len(self.entries) == 1:
                return self.entries[0]
            if _DEFAULT_ENTRY not in self.entries:
                raise UsageError("the program has several entry points", hint=f"choose one of: {known}")
            return _DEFAULT_ENTRY
        if name not in self.entries:
            raise InputError(f"the program has no entry point '{name}'", hint=f"it has: {known}")
        return name

    def _named(
        self, entry: str, ports: Sequence[str], arrays: tuple[ArrayLike | Mapping[str, ArrayLike], ...]
    ) -> dict[str, ArrayLike]:
        if len(arrays) == 1 and isinstance(arrays[0], Mapping):
            given = dict(arrays[0])
        else:
            if len(arrays) > len(ports):
                raise InputError(f"{len(arrays)} inputs given; entry '{entry}' takes {len(ports)}")
            given = dict(zip(ports, cast("tuple[ArrayLike, ...]", arrays), strict=False))
        missing = [name for name in ports if name not in given]
        surplus = [str(name) for name in given if name not in ports]
        if missing or surplus:
            problem = f"lacks {', '.join(missing)}" if missing else f"does not know {', '.join(surplus)}"
            raise InputError(f"entry '{entry}' {problem}", hint=f"its inputs: {', '.join(ports) or 'none'}")
        return given

    def _language_model(self) -> tuple[ModelInfo, TextCodec]:
        self.program.require_images()
        if self.program.model is None or self.program.tokenizer is None:
            raise InputError(
                "the binary carries no tokenizer, so it cannot take text",
                hint="use `pimc run` with arrays, or compile from a model folder with a tokenizer",
            )
        info = ModelInfo.from_json(self.program.model)
        if "decode" not in self.entries:
            raise InputError("the binary has no entry point 'decode', so it cannot generate text")
        check_entries(self.program.entries, info)
        if self._codec is None:
            self._codec = TextCodec(self.program.tokenizer, info)
        return info, self._codec
