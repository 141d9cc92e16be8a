"""A list of instructions of several agents at once, and its words: what core programs and streams have in
common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import LocationAttr
from xdsl.ir import Operation

from pimc.diagnostics import InternalError, IsaError, TargetError
from pimc.ir.code_ops import Code
from pimc.ir.locations import is_unknown, location_text
from pimc.isa.codec import encode, word_dtype
from pimc.isa.spec import InstructionSet, OperandKind


@dataclass
class Label:
    """A place in the words that a branch goes to; ``word`` is known once it is placed."""

    word: int = -1


#: An operand of an instruction: one number, one an agent, or a label.
Value = int | Sequence[int] | Label


@dataclass
class Assembler:
    """Collects instructions, one a word, and makes the words of all agents."""

    isa: InstructionSet
    agents: tuple[int, ...]
    _lines: list[tuple[list[tuple[str, tuple[Value, ...]]], int]] = field(default_factory=list)
    _table: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, op: Operation, mnemonic: str, *operands: Value) -> None:
        """Append an instruction that came from ``op``."""
        self._lines.append(([(mnemonic, operands)], self._location(op.location)))

    def add_each(self, op: Operation, instructions: Sequence[tuple[str, tuple[Value, ...]]]) -> None:
        """Append one word that is a different instruction for each agent."""
        if len(instructions) != len(self.agents):
            raise InternalError(f"{len(instructions)} instructions for {len(self.agents)} agents")
        self._lines.append((list(instructions), self._location(op.location)))

    def place(self, label: Label) -> None:
        """The next word is where ``label`` is."""
        label.word = len(self._lines)

    def _location(self, location: LocationAttr) -> int:
        if is_unknown(location):
            return -1
        return self._table.setdefault(location_text(location), len(self._table))

    def code(self, entry: str) -> Code:
        """The words; raises :class:`IsaError`, with the source location, for what cannot be encoded."""
        dtype = word_dtype(self.isa)
        words = np.zeros(len(self._lines), dtype)
        places: list[int] = []
        patches: list[list[int]] = []
        for word, (instructions, _) in enumerate(self._lines):
            column = self._encode(word, instructions)
            words[word] = column[0]
            if len(set(column)) > 1:
                places.append(word)
                patches.append(column)
        return Code(
            entry,
            self.agents,
            words,
            np.array(places, np.int32),
            np.array(patches, dtype).reshape(len(places), len(self.agents)),
            tuple(self._table),
            np.array([location for _, location in self._lines], np.int32),
        )

    def _encode(self, word: int, instructions: list[tuple[str, tuple[Value, ...]]]) -> list[int]:
        """The word of every agent (one, if all are the same)."""
        agents = len(self.agents)
        uniform = len(instructions) == 1 and not any(
            isinstance(value, Sequence) and len(value) > 1 for value in instructions[0][1]
        )
        column: list[int] = []
        for agent in range(1 if uniform else agents):
            mnemonic, operands = instructions[agent if len(instructions) > 1 else 0]
            numbers = [self._number(word, value, agent) for value in operands]
            try:
                column.append(encode(self.isa, mnemonic, numbers))
            except IsaError as error:
                raise IsaError(error.message, where=self._where(word), hint=self._hint(mnemonic)) from None
        return column

    def _number(self, word: int, value: Value, agent: int) -> int:
        if isinstance(value, Label):
            if value.word < 0:
                raise InternalError("a branch goes to a label that was never placed")
            return value.word - word
        if isinstance(value, int):
            return value
        return value[agent] if len(value) > 1 else value[0]

    def _where(self, word: int) -> str:
        location = self._lines[word][1]
        return f"word {word}" if location < 0 else list(self._table)[location]

    def _hint(self, mnemonic: str) -> str | None:
        operands = self.isa.by_mnemonic()[mnemonic].operands
        if any(operand.kind is OperandKind.LABEL for operand in operands):
            return "the program is too long for a branch"
        return None


def check_size(code: Code, capacity: int, what: str, target: str) -> None:
    """Raise :class:`TargetError` if ``code`` has more words than the instruction memory of ``capacity``
    words.
    """
    if len(code.words) > capacity:
        raise TargetError(
            f"the {what} of entry {code.entry!r} has {len(code.words)} words, "
            f"the instruction memory of {target} has {capacity}",
            hint="a smaller prefill_chunk unrolls less; docs/backend.md says what takes words",
        )
