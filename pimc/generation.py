"""Text from a language model: prompts through its entry points ``prefill`` and ``decode``, token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import InputError, UsageError
from pimc.isa.program import Entry
from pimc.runtime_sim import RunResult
from pimc.runtime_sim.results import Overflow, merged
from pimc.runtime_sim.run_limits import RunLimits
from pimc.sampling import Sampler, Sampling
from pimc.text import Message, ModelInfo, Stream, TextCodec
from pimc.usage import Usage

if TYPE_CHECKING:
    from pimc.runtime import Executable

Array = NDArray[np.generic]
#: The entry point of an encoder, whose keys and values ``decode`` reads.
ENCODE = "encode"


@dataclass(frozen=True)
class Generation:
    """What :meth:`Executable.generate` made.

    ``token_ids`` are the new tokens (the one that ended the answer included, as model libraries count); the
    first comes out of the prefill, each other one out of one decode run, so ``decode_cycles`` (cycles a decode
    run) is one shorter.  ``finish``: "eos", "length" (``max_new_tokens`` reached) or "max_seq" (the cache is
    full).  ``shares``: busy share by kind of unit over the decode runs, greatest first.  ``overflows``: results of all
    runs that left the range of fp16 though their operands were finite.
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
    overflows: tuple[Overflow, ...] = ()

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
            "overflows": [asdict(overflow) for overflow in self.overflows],
        }


@dataclass(frozen=True)
class Wishes:
    """What is asked of an answer: how many tokens at most, how they are chosen, limits, and who is told.

    ``on_text``: called with each new piece of text; ``on_prefill``: with how many tokens of the prompt are done, and
    how many there are.
    """

    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    limits: RunLimits = field(default_factory=RunLimits)
    on_text: Callable[[str], None] | None = None
    on_prefill: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Raises: UsageError without a token to make."""
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {self.max_new_tokens}, which is not at least 1")


def answer(
    executable: Executable, codec: TextCodec, info: ModelInfo, prompt: list[int], wishes: Wishes, held: int = 0
) -> Generation:
    """Continue ``prompt``, of whose tokens the caches hold the first ``held`` already.

    Raises:
        InputError: an empty or too long prompt.
        RunLimitError: a limit is reached.
    """
    _check_prompt(len(prompt), _longest_prompt(executable, info))
    began = time.perf_counter()
    session, stream = _Session(executable, info, wishes), Stream(codec)
    with executable.session():
        token = session.begin(prompt, min(held, len(prompt) - 1))
        tokens = [token]
        while True:
            finish = _finish(tokens, session.begun, wishes.max_new_tokens, info)
            piece = stream.push(token) if finish is None else stream.push(token) + stream.finish()
            if piece and wishes.on_text is not None:
                wishes.on_text(piece)
            if finish is not None:
                break
            token = session.decode(token, session.begun + len(tokens) - 1)
            tokens.append(token)
    return Generation(
        text=stream.text,
        token_ids=tokens,
        prompt_token_ids=prompt,
        prefill_cycles=session.prefill_cycles,
        decode_cycles=session.decode_cycles,
        clock_ghz=executable.clock_ghz,
        wall_s=time.perf_counter() - began,
        finish=finish,
        shares=session.usage.shares(),
        overflows=session.overflows,
    )


def check_entries(entries: Mapping[str, Entry], info: ModelInfo) -> None:
    """InputError unless the entry points take tokens and give logits, as those of a language model do."""
    one = ("i32", (1,))
    length = {"length": one} if ENCODE in entries else {}
    wanted: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
        "prefill": {"tokens": ("i32", (1, info.prefill_chunk)), "position": one, "length": one},
        "decode": {"tokens": ("i32", (1, 1)), "position": one, **length},
        ENCODE: {"source": ("i32", (1, _source_tokens(entries))), "length": one},
    }
    for name in entries.keys() & wanted.keys():
        inputs = {port.name: (port.dtype, port.shape) for port in entries[name].inputs}
        outputs = entries[name].outputs
        if inputs != wanted[name] or len(outputs) != 1 or prod(outputs[0].shape) == 0:
            raise InputError(f"the entry point '{name}' is not that of a language model, so it cannot generate text")
    if ENCODE in entries and not info.start_ids:
        raise InputError("the binary does not say which token the decoder begins with, so it cannot generate text")


def _source_tokens(entries: Mapping[str, Entry]) -> int:
    """Tokens that an encoder takes; 0 for one that takes no tokens."""
    shapes = [port.shape for port in entries[ENCODE].inputs if port.name == "source"] if ENCODE in entries else []
    return shapes[0][1] if shapes and len(shapes[0]) == 2 else 0


class Conversation:
    """Turns of a user and a language model; the caches keep what has been said, so each turn reads only what is new.

    Whatever else runs on the executable between two turns overwrites the caches; the next turn then reads everything
    again.
    """

    def __init__(
        self, executable: Executable, codec: TextCodec, info: ModelInfo, *, system: str | None, sampling: Sampling
    ) -> None:
        self._executable, self._codec, self._info, self._sampling = executable, codec, info, sampling
        self._system = system
        self._held: list[int] = []
        self._runs = executable.runs
        self.messages: list[Message] = []
        self.reset()

    def reset(self) -> None:
        """Forget what has been said."""
        self.messages = [] if self._system is None else [{"role": "system", "content": self._system}]
        self._held = []

    def say(
        self,
        text: str,
        *,
        max_new_tokens: int = 64,
        on_text: Callable[[str], None] | None = None,
        on_prefill: Callable[[int, int], None] | None = None,
        max_cycles: int | None = None,
        timeout: float | None = None,
    ) -> Generation:
        """The model's answer to what the user says; both become part of the conversation.

        The arguments and the errors are those of :meth:`pimc.Executable.generate`; after an error the conversation is
        as it was before.
        """
        limits = RunLimits(max_cycles, timeout)
        wishes = Wishes(max_new_tokens, self._sampling, limits, on_text, on_prefill)
        asked: list[Message] = [*self.messages, {"role": "user", "content": text}]
        prompt = self._codec.encode_messages(asked)
        known, self._held = self._held if self._runs == self._executable.runs else [], []
        with self._executable.session():
            made = answer(self._executable, self._codec, self._info, prompt, wishes, _common(known, prompt))
            self._runs = self._executable.runs
        # The last token was not read: nothing followed it.
        self._held = [*prompt, *made.token_ids[:-1]]
        self.messages = [*asked, {"role": "assistant", "content": made.text}]
        return made


def _common(known: Sequence[int], prompt: Sequence[int]) -> int:
    """Tokens that both begin with."""
    for index, (left, right) in enumerate(zip(known, prompt, strict=False)):
        if left != right:
            return index
    return min(len(known), len(prompt))


class _Session:
    """One answer: prefill runs for the prompt, then decode runs, with what they cost.

    A program exported for single tokens only has no ``prefill``: its prompt goes through ``decode``, token by token.
    That of an encoder-decoder goes through ``encode``, and the decoder begins with tokens of its own.  ``begun``: how
    many tokens in the caches the answer stands behind.
    """

    def __init__(self, executable: Executable, info: ModelInfo, wishes: Wishes) -> None:
        self._executable, self._limits, self._began = executable, wishes.limits, time.monotonic()
        self._told, self._sampler = wishes.on_prefill or _nothing, Sampler(wishes.sampling)
        self._chunk, self._slots = info.prefill_chunk, _chunk_slots(executable, info)
        self._start, self._length = list(info.start_ids), 0
        self.begun = 0
        self.prefill_cycles = 0
        self.decode_cycles: list[int] = []
        self.usage = Usage(executable.target)
        self.overflows: tuple[Overflow, ...] = ()

    def begin(self, prompt: list[int], start: int) -> int:
        """Read the prompt; return the first new token."""
        if ENCODE in self._executable.entries:
            self._encode(prompt)
            prompt, start = self._start, 0
        self.begun = len(prompt)
        return self._prefill_all(prompt, start)

    def _encode(self, prompt: list[int]) -> None:
        """Run the prompt through the encoder, padded to the tokens that it takes."""
        tokens = np.zeros((1, _source_tokens(self._executable.program.entries)), np.int32)
        tokens[0, : len(prompt)] = prompt
        self._length = len(prompt)
        inputs = {"source": tokens, "length": np.array([len(prompt)], np.int32)}
        self.prefill_cycles += self._run(inputs, ENCODE).cycles

    def _prefill_all(self, prompt: list[int], start: int) -> int:
        """Run the prompt through from ``start`` on, in chunks as far as those fit; return the first new token."""
        logits: Array = np.zeros(0)
        while start < len(prompt):
            if start + self._chunk <= self._slots:
                done = min(self._chunk, len(prompt) - start)
                result = self._prefill(prompt[start : start + done], start)
            else:
                done = 1
                result = self._decode(prompt[start], start)
            self.prefill_cycles += result.cycles
            logits = _logits(result)
            start += done
            self._told(start, len(prompt))
        return self._sampler.choose(logits)

    def _prefill(self, piece: list[int], start: int) -> RunResult:
        tokens = np.zeros((1, self._chunk), np.int32)
        tokens[0, : len(piece)] = piece
        inputs = {
            "tokens": tokens,
            "position": np.array([start], np.int32),
            "length": np.array([len(piece)], np.int32),
        }
        return self._run(inputs, "prefill")

    def decode(self, token: int, position: int) -> int:
        """Process ``token`` at ``position``; return the token that follows."""
        result = self._decode(token, position)
        self.decode_cycles.append(result.cycles)
        self.usage.add(result)
        return self._sampler.choose(_logits(result))

    def _decode(self, token: int, position: int) -> RunResult:
        inputs = {"tokens": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        if self._length:
            inputs["length"] = np.array([self._length], np.int32)
        return self._run(inputs, "decode")

    def _run(self, inputs: Mapping[str, Array], entry: str) -> RunResult:
        spent = self.prefill_cycles + sum(self.decode_cycles)
        limits = replace(self._limits, spent_cycles=spent, spent_s=time.monotonic() - self._began)
        result = self._executable._run((inputs,), entry, False, limits)
        self.overflows = merged(self.overflows, result.overflows)
        return result


def _nothing(_done: int, _all: int) -> None:
    """No one watches."""


def _logits(result: RunResult) -> Array:
    (logits,) = result.outputs.values()
    return logits


def _chunk_slots(executable: Executable, info: ModelInfo) -> int:
    """Cache slots that whole chunks may take; none without an entry point for them."""
    if "prefill" not in executable.entries:
        return 0
    positions = next((port.range for port in executable.inputs["prefill"] if port.name == "position"), None)
    chunks = -(-info.max_seq // info.prefill_chunk) * info.prefill_chunk
    return chunks if positions is None else min(chunks, positions[1] + info.prefill_chunk)


def _longest_prompt(executable: Executable, info: ModelInfo) -> int:
    """Tokens that a prompt may have."""
    entries = executable.program.entries
    return _source_tokens(entries) if ENCODE in entries else info.max_seq


def _check_prompt(length: int, longest: int) -> None:
    if length == 0:
        raise InputError("the prompt is empty: it has no tokens")
    if length > longest:
        raise InputError(
            f"the prompt has {length} tokens; the program was compiled for {longest}",
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
