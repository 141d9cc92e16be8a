"""Text in and out of a language model: its tokenizer and chat template, as they travel in the binary.

Needs only tokenizers and jinja2, so that a binary generates text where no model library is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
from tokenizers import Tokenizer

from pimc.diagnostics import InputError
from pimc.isa.program import Json

_REPLACEMENT = "\ufffd"  # what a decoder puts for bytes that are not (yet) a whole character


@dataclass(frozen=True)
class ModelInfo:
    """What is needed around a compiled language model; travels in the binary as JSON.

    ``max_seq``: cache slots, prompt and answer together; ``prefill_chunk``: prompt tokens a prefill run takes;
    ``eos_ids``: tokens that end an answer; ``special``: named special tokens (``bos_token`` ...) for the
    template.
    """

    name: str
    max_seq: int
    prefill_chunk: int
    eos_ids: tuple[int, ...] = ()
    chat_template: str | None = None
    special: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Json]:
        """The JSON object that :meth:`from_json` reads."""
        return {
            "name": self.name,
            "max_seq": self.max_seq,
            "prefill_chunk": self.prefill_chunk,
            "eos_ids": list(self.eos_ids),
            "chat_template": self.chat_template,
            "special": dict(self.special or {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> ModelInfo:
        """Read and check the JSON object of a binary (which may be hostile).

        Raises:
            InputError: a field is missing or of the wrong type.
        """
        try:
            eos_ids, special = value.get("eos_ids", []), value.get("special", {})
            template = value.get("chat_template")
            if not isinstance(eos_ids, list) or not isinstance(special, dict):
                raise TypeError("eos_ids or special")
            if not (template is None or isinstance(template, str)):
                raise TypeError("chat_template")
            info = cls(
                name=str(value["name"]),
                max_seq=_count(value["max_seq"]),
                prefill_chunk=_count(value["prefill_chunk"]),
                eos_ids=tuple(_count(item, least=0) for item in eos_ids),
                chat_template=template,
                special={str(key): str(item) for key, item in special.items()},
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"the binary's model metadata is malformed: {error}") from error
        return info


def _count(value: object, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise TypeError(f"{value!r} is not a whole number of at least {least}")
    return value


class TextCodec:
    """Prompts to token numbers and back, by a model's own tokenizer and chat template."""

    def __init__(self, tokenizer_json: str, info: ModelInfo) -> None:
        """Raises: InputError if the tokenizer's JSON is malformed."""
        self._info = info
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"the binary's tokenizer is malformed: {error}") from error

    def encode(self, prompt: str, *, chat: bool) -> list[int]:
        """The token numbers of ``prompt``; with ``chat``, of the conversation in which the user says it.

        Raises:
            InputError: ``chat`` with a model that has no chat template, or the template refuses.
        """
        text = self._in_template(prompt) if chat else prompt
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=not chat).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _in_template(self, prompt: str) -> str:
        if self._info.chat_template is None:
            raise InputError(f"model '{self._info.name}' has no chat template", hint="leave --chat out")
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        try:
            template = environment.from_string(self._info.chat_template)
            return template.render(
                messages=[{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                **dict(self._info.special or {}),
            )
        except jinja2.TemplateError as error:
            raise InputError(f"the model's chat template failed: {error}") from error


class Stream:
    """Turns a growing list of tokens into pieces of text: holds back what is not yet a whole character."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._ids: list[int] = []
        self._shown = ""

    def push(self, token: int) -> str:
        """Add a token; return the new text (may be empty)."""
        self._ids.append(token)
        text = self._codec.decode(self._ids)
        if text.endswith(_REPLACEMENT):
            return ""
        return self._advance(text)

    def finish(self) -> str:
        """The text held back, when no token will follow."""
        return self._advance(self._codec.decode(self._ids))

    @property
    def text(self) -> str:
        """All text given out so far."""
        return self._shown

    def _advance(self, text: str) -> str:
        piece = text[len(self._shown) :]
        self._shown = text
        return piece


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
