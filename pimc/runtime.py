"""A compiled program, ready to run: arrays in and arrays out, or a prompt in and text out.

Everything here works on the binary and the simulator; no compiler, no model library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pimc.diagnostics import InputError, UninitialisedReadError, UsageError
from pimc.isa.container import write_program
from pimc.isa.program import Entry, LoadedProgram
from pimc.isa.validate import check_against_target
from pimc.ports import PortInfo, describe, from_port, signature_of, to_port
from pimc.runtime_sim import Machine, RunResult
from pimc.runtime_sim.caches import check_positions
from pimc.runtime_sim.forking import ForkSafeLock
from pimc.runtime_sim.pool import MachinePool
from pimc.runtime_sim.run_limits import RunLimits
from pimc.targets import Target
from pimc.text import ModelInfo, Stream, TextCodec
from pimc.usage import Usage

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


@dataclass(frozen=True)
class Generation:
    """What :meth:`Executable.generate` made.

    ``token_ids`` are the new tokens (the one that ended the answer included, as model libraries count); the
    first comes out of the prefill, each other one out of one decode run, so ``decode_cycles`` (cycles a decode
    run) is one shorter.  ``finish``: "eos", "length" (``max_new_tokens`` reached) or "max_seq" (the cache is
    full).  ``shares``: busy share by kind of unit over the decode runs, greatest first.
    """

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    prefill_cycles: int
    decode_cycles: list[int]
    clock_ghz: float
    wall_s: float
    finish: str
    shares: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The JSON object that ``pimc generate --json`` prints."""
        return {
            "text": self.text,
            "token_ids": self.token_ids,
            "prompt_token_ids": self.prompt_token_ids,
            "prefill_cycles": self.prefill_cycles,
            "decode_cycles": self.decode_cycles,
            "clock_ghz": self.clock_ghz,
            "wall_s": round(self.wall_s, 3),
            "finish": self.finish,
        }


class Executable:
    """A program and the simulated machine it runs on.

    The machine's HBM keeps its contents from run to run (KV caches live there); :meth:`reset` starts afresh.

    Several threads may use it.  Runs of a program that keeps a state in HBM wait for each other, and :meth:`generate`
    for whole answers; :meth:`session` holds others off for as long as wanted.  Runs of a program without a state are
    independent and run at once.  A copy that pickle makes, for another process, starts from the memory images; a
    forked process has the state of the moment.
    """

    def __init__(self, program: LoadedProgram, target: Target, *, checks: bool = True) -> None:
        """Put ``program`` on ``target``.

        Args:
            checks: whether runs look for races and for reads of what nothing has written (addresses are always
                checked).

        Raises:
            TargetError: it does not fit; the message names what.
        """
        check_against_target(program, target)
        self.program = program
        self.target = target
        self.checks = checks
        self._machines: dict[bool, MachinePool] = {}
        self._codec: TextCodec | None = None
        self._assumed = 0
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
                result = machine.run(name, inputs, limits)
        except UninitialisedReadError as error:
            if self.program.caches and error.hint is None:
                error.hint = _UNWRITTEN
            raise
        outputs = {
            model.name: from_port(result.outputs[port.name], model)
            for model, port in zip(signature.outputs, ports.outputs, strict=True)
        }
        return replace(result, outputs={} if timing_only else outputs)

    def generate(
        self,
        prompt: str,
        *,
        chat: bool = False,
        max_new_tokens: int = 64,
        on_text: Callable[[str], None] | None = None,
        on_prefill: Callable[[int, int], None] | None = None,
        max_cycles: int | None = None,
        timeout: float | None = None,
    ) -> Generation:
        """Continue ``prompt`` greedily until the model ends, or ``max_new_tokens``, or the cache is full.

        Args:
            prompt: the text to continue; with ``chat``, what the user says in the model's chat template.
            on_text: called with each new piece of text as it comes.
            on_prefill: called with how many tokens of the prompt are done, and how many there are.
            max_cycles: simulated cycles, of all runs together, after which generation is stopped.
            timeout: seconds of wall time after which it is stopped.

        Raises:
            InputError: not a language model, an empty or too long prompt, no chat template.
            RunLimitError: ``max_cycles`` or ``timeout`` is reached.
        """
        if max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {max_new_tokens}, which is not at least 1")
        info, codec = self._language_model()
        began = time.perf_counter()
        prompt_ids = codec.encode(prompt, chat=chat)
        _check_prompt(len(prompt_ids), info)
        session = _Session(self, info, RunLimits(max_cycles, timeout))
        stream = Stream(codec)
        with self.session():
            token = session.prefill(prompt_ids, on_prefill)
            tokens = [token]
            while True:
                finish = _finish(tokens, len(prompt_ids), max_new_tokens, info)
                piece = stream.push(token) if finish is None else stream.push(token) + stream.finish()
                if piece and on_text is not None:
                    on_text(piece)
                if finish is not None:
                    break
                token = session.decode(token, len(prompt_ids) + len(tokens) - 1)
                tokens.append(token)
        return Generation(
            text=stream.text,
            token_ids=tokens,
            prompt_token_ids=prompt_ids,
            prefill_cycles=session.prefill_cycles,
            decode_cycles=session.decode_cycles,
            clock_ghz=self.clock_ghz,
            wall_s=time.perf_counter() - began,
            finish=finish,
            shares=session.usage.shares(),
        )

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
        if self.program.model is None or self.program.tokenizer is None:
            raise InputError(
                "the binary carries no tokenizer, so it cannot take text",
                hint="use `pimc run` with arrays, or compile from a model folder with a tokenizer",
            )
        info = ModelInfo.from_json(self.program.model)
        if "decode" not in self.entries:
            raise InputError("the binary has no entry point 'decode', so it cannot generate text")
        _check_entries(self.program.entries, info)
        if self._codec is None:
            self._codec = TextCodec(self.program.tokenizer, info)
        return info, self._codec


def _check_entries(entries: Mapping[str, Entry], info: ModelInfo) -> None:
    """InputError unless the entry points take tokens and give logits, as those of a language model do."""
    for name, tokens in (("prefill", info.prefill_chunk), ("decode", 1)):
        if name not in entries:
            continue
        inputs = {port.name: (port.dtype, port.shape) for port in entries[name].inputs}
        wanted = {"tokens": ("i32", (1, tokens)), "position": ("i32", (1,))}
        if name == "prefill":
            wanted["length"] = ("i32", (1,))
        outputs = entries[name].outputs
        if inputs != wanted or len(outputs) != 1 or prod(outputs[0].shape) == 0:
            raise InputError(f"the entry point '{name}' is not that of a language model, so it cannot generate text")


class _Session:
    """One answer: prefill runs for the prompt, then decode runs, with what they cost.

    A program exported for single tokens only has no ``prefill``: its prompt goes through ``decode``, token by token.
    """

    def __init__(self, executable: Executable, info: ModelInfo, limits: RunLimits) -> None:
        self._executable, self._limits, self._began = executable, limits, time.monotonic()
        self._chunk = info.prefill_chunk
        self.prefill_cycles = 0
        self.decode_cycles: list[int] = []
        self.usage = Usage(executable.target)

    def prefill(self, prompt: list[int], on_prefill: Callable[[int, int], None] | None) -> int:
        """Run the prompt through in chunks; return the first new token."""
        token = -1
        told = on_prefill or _nothing
        if "prefill" not in self._executable.entries:
            for position, known in enumerate(prompt):
                result = self._decode(known, position)
                self.prefill_cycles += result.cycles
                token = _greedy(result)
                told(position + 1, len(prompt))
            return token
        for start in range(0, len(prompt), self._chunk):
            piece = prompt[start : start + self._chunk]
            tokens = np.zeros((1, self._chunk), np.int32)
            tokens[0, : len(piece)] = piece
            inputs = {
                "tokens": tokens,
                "position": np.array([start], np.int32),
                "length": np.array([len(piece)], np.int32),
            }
            result = self._run(inputs, "prefill")
            self.prefill_cycles += result.cycles
            token = _greedy(result)
            told(start + len(piece), len(prompt))
        return token

    def decode(self, token: int, position: int) -> int:
        """Process ``token`` at ``position``; return the token that follows."""
        result = self._decode(token, position)
        self.decode_cycles.append(result.cycles)
        self.usage.add(result)
        return _greedy(result)

    def _decode(self, token: int, position: int) -> RunResult:
        inputs = {"tokens": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        return self._run(inputs, "decode")

    def _run(self, inputs: Mapping[str, Array], entry: str) -> RunResult:
        spent = self.prefill_cycles + sum(self.decode_cycles)
        limits = replace(self._limits, spent_cycles=spent, spent_s=time.monotonic() - self._began)
        return self._executable._run((inputs,), entry, False, limits)


def _nothing(_done: int, _all: int) -> None:
    """No one watches."""


def _greedy(result: RunResult) -> int:
    """The token with the greatest logit (the lowest number among equals)."""
    (logits,) = result.outputs.values()
    return int(np.argmax(logits.reshape(-1)))


def _check_prompt(length: int, info: ModelInfo) -> None:
    if length == 0:
        raise InputError("the prompt is empty: it has no tokens")
    if length > info.max_seq:
        raise InputError(
            f"the prompt has {length} tokens; the program was compiled for {info.max_seq}",
            hint=f"shorten it, or compile with --max-seq {length + 64} or more",
        )


def _finish(tokens: list[int], prompt: int, limit: int, info: ModelInfo) -> str | None:
    """Why generation ends after ``tokens``, or None if it goes on."""
    if tokens[-1] in info.eos_ids:
        return "eos"
    if len(tokens) >= limit:
        return "length"
    # The next run would write cache slot prompt + len(tokens) - 1.
    return "max_seq" if prompt + len(tokens) > info.max_seq else None
