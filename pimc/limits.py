"""Every limit on what an untrusted file may hold or cost, in one table (docs/security.md shows it).

What is beyond a limit is refused with an error that names it.  Like ``diagnostics``, this module imports nothing of
pimc, so that every part may use it.
"""

from __future__ import annotations

from typing import Final


class Limit(int):
    """A whole number that knows its unit and what it bounds."""

    unit: str
    what: str

    def __new__(cls, value: int, unit: str, what: str) -> Limit:
        """``value`` of ``unit`` (bytes, seconds ...) at most, of ``what``."""
        limit = super().__new__(cls, value)
        limit.unit, limit.what = unit, what
        return limit

    @property
    def text(self) -> str:
        """The number with its unit, for people: ``1 GiB``, ``10 s``, ``4096 tokens``."""
        if self.unit == "bytes":
            for name, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
                if self >= size and self % size == 0:
                    return f"{int(self) // size} {name}"
        return f"{int(self)} {self.unit}"


# -- the binary
HEADER_BYTES: Final = Limit(100_000_000, "bytes", "header of a binary (the safetensors library's own limit)")
MODEL_BYTES: Final = Limit(4 << 20, "bytes", "model metadata of a binary")
TOKENIZER_BYTES: Final = Limit(64 << 20, "bytes", "tokenizer of a binary")
HEADER_VALUES: Final = Limit(1 << 20, "values", "values in a part of the header (tensors, program, source locations)")
AGENTS: Final = Limit(1 << 16, "numbers", "cores, controllers, pseudo-channels that a binary can name")
ROWS: Final = Limit(1 << 32, "rows", "rows of a bank")
ELEMENTS: Final = Limit(1 << 40, "elements", "elements of a tensor or a port")
STREAM_WORDS: Final = Limit(1 << 20, "words", "code of a core or of a group of controllers")
CODE_WORDS: Final = Limit(1 << 23, "words", "code of a binary")
PORT_BYTES: Final = Limit(1 << 30, "bytes", "all inputs, and all outputs, of an entry point")
RANK: Final = Limit(8, "dimensions", "dimensions of a port")

# -- the model metadata
JSON_DEPTH: Final = Limit(16, "levels", "nesting of the model metadata")
JSON_VALUES: Final = Limit(1 << 18, "values", "values in the model metadata")
NAME_CHARACTERS: Final = Limit(1_000, "characters", "name of a model, an input, an output, a special token")
TEMPLATE_CHARACTERS: Final = Limit(1 << 20, "characters", "chat template")
SEQUENCE: Final = Limit((1 << 31) - 1, "tokens", "longest sequence, prefill chunk, token number")
EOS_IDS: Final = Limit(1_024, "tokens", "tokens that end an answer")
SPECIAL_TOKENS: Final = Limit(256, "tokens", "named special tokens")
OVERRIDES: Final = Limit(1_024, "overrides", "overridden figures of the target")
OVERRIDE_CHARACTERS: Final = Limit(1_000, "characters", "an overridden figure of the target")
PORTS: Final = Limit(4_096, "ports", "inputs, and outputs, of an entry point")

# -- the tokenizer's and template's process
TEXT_MEMORY: Final = Limit(1 << 30, "bytes", "memory of the process that runs tokenizer and template")
TEXT_CPU_S: Final = Limit(10, "s", "processor time of one step of tokenizer or template")
TEXT_WALL_S: Final = Limit(60, "s", "time until that process answers")
TEXT_ANSWER_BYTES: Final = Limit(32 << 20, "bytes", "what that process answers to one question")
PROMPT_BYTES: Final = Limit(16 << 20, "bytes", "prompt")

# -- files that are read as text
TEXT_FILE_BYTES: Final = Limit(1 << 30, "bytes", "assembly or IR text")
TARGET_FILE_BYTES: Final = Limit(4 << 20, "bytes", "target description")

# -- what is printed
ERROR_CHARACTERS: Final = Limit(2_000, "characters", "line of an error message")


def table() -> dict[str, Limit]:
    """All limits by name, in the order of this file."""
    return {name: value for name, value in globals().items() if isinstance(value, Limit)}
