"""Text in and out of a language model: its tokenizer and chat template, as they travel in the binary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from pimc.child import Child, RefusedError
from pimc.diagnostics import InputError
from pimc.isa.model import check_model
from pimc.isa.program import Json
from pimc.limits import PROMPT_BYTES, SEQUENCE, TOKENIZER_BYTES

#: What somebody says in a conversation: ``role`` (system, user or assistant) and ``content``.
Message: TypeAlias = Mapping[str, str]
_TOKENIZER = "the binary's tokenizer"
_REPLACEMENT = "\ufffd"  # what a decoder puts for bytes that are not (yet) a whole character
_LONGEST_CHARACTER = 8  # tokens; a character has four bytes at most, each of which may be a token


@dataclass(frozen=True)
class ModelInfo:
    """What is needed around a compiled language model; travels in the binary as JSON.

    ``max_seq``: cache slots, prompt and answer together; ``prefill_chunk``: prompt tokens a prefill run takes;
    ``eos_ids``: tokens that end an answer; ``special``: named special tokens (``bos_token`` ...) for the
    template; ``start_ids``: of an encoder-decoder, the tokens that the decoder begins with.
    """

    name: str
    max_seq: int
    prefill_chunk: int
    eos_ids: tuple[int, ...] = ()
    chat_template: str | None = None
    special: Mapping[str, str] | None = None
    start_ids: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """The JSON object that :meth:`from_json` reads."""
        return {
            "name": self.name,
            "max_seq": self.max_seq,
            "prefill_chunk": self.prefill_chunk,
            "eos_ids": list(self.eos_ids),
            "chat_template": self.chat_template,
            "special": dict(self.special or {}),
            **({"start_ids": list(self.start_ids)} if self.start_ids else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> ModelInfo:
        """Read and check the JSON object of a binary (which may be hostile).

        Raises:
            InputError: a field is missing, of the wrong type or beyond its limit.
        """
        try:
            checked = check_model(value, "the binary's model metadata")
            template = checked.get("chat_template")
            return cls(
                name=str(checked["name"]),
                max_seq=cast("int", checked["max_seq"]),
                prefill_chunk=cast("int", checked["prefill_chunk"]),
                eos_ids=tuple(cast("list[int]", checked.get("eos_ids", []))),
                chat_template=None if template is None else str(template),
                special=cast("dict[str, str]", checked.get("special", {})),
                start_ids=tuple(cast("list[int]", checked.get("start_ids", []))),
            )
        except KeyError as error:
            raise InputError(f"the binary's model metadata is malformed: it lacks {error}") from error


class TextCodec:
    """Prompts to token numbers and back, by a model's own tokenizer and chat template.

    Both come from the binary and may be anybody's: they work in a process with limits (:mod:`pimc.child`), one for
    each codec, which the first use starts.
    """

    def __init__(self, tokenizer_json: str, info: ModelInfo) -> None:
        """Raises: InputError if the tokenizer's JSON is malformed, or needs more memory or time than it may."""
        self._info = info
        self._tokenizer_json = tokenizer_json
        self._child = Child("pimc.text_worker")
        self._load()

    def close(self) -> None:
        """End the process (the next use starts it again)."""
        self._child.close()

    def encode(self, prompt: str, *, chat: bool) -> list[int]:
        """The token numbers of ``prompt``; with ``chat``, of the conversation in which the user says it.

        Raises:
            InputError: ``chat`` with a model that has no chat template, the template refuses, or either needs more
                memory or time than it may.
        """
        if chat:
            return self.encode_messages([{"role": "user", "content": prompt}])
        _check_size([prompt])
        return self._ids(prompt, special=True)

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        """The token numbers of a conversation that the model is to continue, in its chat template.

        Raises:
            InputError: the model has no chat template, the template refuses, or needs more memory or time than it may.
        """
        _check_size([message["content"] for message in messages])
        return self._ids(self._in_template(messages), special=False)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        ids = self._ask({"do": "encode", "text": text, "special": special}, _TOKENIZER).get("ids")
        if not isinstance(ids, list) or not all(isinstance(i, int) and 0 <= i <= SEQUENCE for i in ids):
            raise InputError(f"{_TOKENIZER} gives no proper token numbers")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        return self.decode_each(ids)[0]

    def decode_each(self, *lists: Sequence[int]) -> list[str]:
        """The text of each list of tokens (one question to the process for all)."""
        texts = self._ask({"do": "decode", "ids": [list(ids) for ids in lists]}, _TOKENIZER).get("texts")
        if not isinstance(texts, list) or len(texts) != len(lists) or not all(isinstance(t, str) for t in texts):
            raise InputError(f"{_TOKENIZER} gives no proper text")
        return texts

    def _in_template(self, messages: Sequence[Message]) -> str:
        if self._info.chat_template is None:
            raise InputError(f"model '{self._info.name}' has no chat template", hint="leave --chat out")
        values = {
            **(self._info.special or {}),
            "messages": list(messages),
            "add_generation_prompt": True,
        }
        question = {"do": "render", "template": self._info.chat_template, "values": values}
        text = self._ask(question, "the model's chat template").get("text")
        if not isinstance(text, str):
            raise InputError("the model's chat template gives no text")
        return text

    def _load(self) -> None:
        if len(self._tokenizer_json.encode()) > TOKENIZER_BYTES:
            raise InputError(f"{_TOKENIZER} has more than {TOKENIZER_BYTES.text}")
        try:
            self._child.ask({"do": "load", "tokenizer": self._tokenizer_json}, _TOKENIZER)
        except RefusedError as error:
            raise InputError(f"{_TOKENIZER} is malformed: {error.message.removeprefix(_TOKENIZER).strip()}") from error

    def _ask(self, question: Mapping[str, object], who: str) -> dict[str, object]:
        if not self._child.started:
            self._load()
        return self._child.ask(question, who)


class Stream:
    """Turns a growing list of tokens into pieces of text: holds back what is not yet a whole character.

    A piece is the difference of two short texts: of the last tokens that were shown (what a token reads may depend on
    the one before it), and of those with the tokens since.
    """

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._shown: list[int] = []
        self._held: list[int] = []
        self._pieces: list[str] = []

    def push(self, token: int) -> str:
        """Add a token; return the new text (may be empty)."""
        self._held.append(token)
        before, text = self._texts()
        if text.endswith(_REPLACEMENT) and len(self._held) < _LONGEST_CHARACTER:
            return ""
        return self._show(before, text)

    def finish(self) -> str:
        """The text held back, when no token will follow."""
        return self._show(*self._texts()) if self._held else ""

    @property
    def text(self) -> str:
        """All text given out so far."""
        return "".join(self._pieces)

    def _texts(self) -> tuple[str, str]:
        before, text = self._codec.decode_each(self._shown, self._shown + self._held)
        return before, text

    def _show(self, before: str, text: str) -> str:
        piece = text[len(before) :]
        if piece:
            # Tokens without a text of their own (special ones) stay with what was shown before them.
            self._shown, self._held = self._held, []
        self._pieces.append(piece)
        return piece


def _check_size(texts: Sequence[str]) -> None:
    if sum(len(_utf8(text)) for text in texts) > PROMPT_BYTES:
        raise InputError(f"the prompt has more than {PROMPT_BYTES.text}")


def _utf8(prompt: str) -> bytes:
    try:
        return prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError("the prompt is not Unicode text", hint="its bytes must be UTF-8") from error
