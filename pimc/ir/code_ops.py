"""``sram.code`` and ``hbm.code``: the words of a program or stream, as ``emit`` leaves them.

The words of agents that run one text differ in few places (constants that differ by core).  So the operation holds
the words of the first agent, and at the places where any other's differ the words of all: ``patch_words`` is
[places, agents].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, IntegerType, StringAttr, i32, i64
from xdsl.ir import Attribute
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def
from xdsl.utils.exceptions import VerifyException

from pimc.ir.instruction_ops import numbers, numbers_attribute


@dataclass(frozen=True, eq=False)
class Code:
    """The words of some agents of an entry.

    ``agents``: core or group numbers.  ``words``: unsigned [n], the first agent's.  ``places``: int [k],
    ascending; ``patches``: unsigned [k, agents].  ``table`` and ``index`` (int [n], -1 unknown): the source
    location of each word.
    """

    entry: str
    agents: tuple[int, ...]
    words: NDArray[np.unsignedinteger]
    places: NDArray[np.int32]
    patches: NDArray[np.unsignedinteger]
    table: tuple[str, ...]
    index: NDArray[np.int32]

    def of(self, position: int) -> NDArray[np.unsignedinteger]:
        """The words [n] of the agent at a position in ``agents``."""
        words = self.words.copy()
        words[self.places] = self.patches[:, position]
        return words


class CodeOp(IRDLOperation):
    """The words of a program; see the module and :class:`Code`."""

    entry = prop_def(StringAttr)
    agents = prop_def(DenseArrayBase)
    words = prop_def(DenseArrayBase)
    patch_places = prop_def(DenseArrayBase)
    patch_words = prop_def(DenseArrayBase)
    location_table = prop_def(ArrayAttr)
    location_index = prop_def(DenseArrayBase)

    @classmethod
    def word_type(cls) -> IntegerType:
        """The element type of the words."""
        raise NotImplementedError

    @classmethod
    def properties_of(cls, code: Code) -> dict[str, Attribute]:
        """The properties that hold ``code``."""
        return {
            "entry": StringAttr(code.entry),
            "agents": numbers_attribute(code.agents),
            "words": _signed_array(code.words, cls.word_type()),
            "patch_places": _signed_array(code.places, i32),
            "patch_words": _signed_array(code.patches.reshape(-1), cls.word_type()),
            "location_table": ArrayAttr([StringAttr(text) for text in code.table]),
            "location_index": _signed_array(code.index, i32),
        }

    @property
    def code(self) -> Code:
        """The words as arrays."""
        bits = self.word_type().bitwidth
        agents = numbers(self.agents)
        places = _integers(self.patch_places).astype(np.int32)
        return Code(
            self.entry.data,
            agents,
            _words(self.words, bits),
            places,
            _words(self.patch_words, bits).reshape(len(places), len(agents)),
            tuple(item.data for item in self.location_table if isinstance(item, StringAttr)),
            _integers(self.location_index).astype(np.int32),
        )

    def verify_(self) -> None:
        """Sizes of words, patches and locations agree."""
        words, places = len(self.words), len(self.patch_places)
        if len(self.patch_words) != places * len(self.agents):
            raise VerifyException(f"{self.name}: there must be one patch for each place and agent")
        if any(not 0 <= place < words for place in numbers(self.patch_places)):
            raise VerifyException(f"{self.name}: a patch lies outside the words")
        if len(self.location_index) != words:
            raise VerifyException(f"{self.name}: there must be one location for each word")
        if any(not -1 <= index < len(self.location_table) for index in numbers(self.location_index)):
            raise VerifyException(f"{self.name}: a location index lies outside the table")


@irdl_op_definition
class SramCodeOp(CodeOp):
    """Words of the cores; ``ports`` are dictionaries (name, direction, dtype, shape, and pieces: core, byte
    address, element offset, elements, one after the other).
    """

    name = "sram.code"

    ports = prop_def(ArrayAttr)

    @classmethod
    def word_type(cls) -> IntegerType:
        """i32."""
        return i32

    @classmethod
    def make(cls, code: Code, ports: Iterable[Attribute]) -> Self:
        """The operation for some words and ports."""
        return cls.create(properties={**cls.properties_of(code), "ports": ArrayAttr(ports)})


@irdl_op_definition
class HbmCodeOp(CodeOp):
    """Words of the controllers of some groups."""

    name = "hbm.code"

    @classmethod
    def word_type(cls) -> IntegerType:
        """i64."""
        return i64

    @classmethod
    def make(cls, code: Code) -> Self:
        """The operation for some words."""
        return cls.create(properties=cls.properties_of(code))


def _signed_array(values: NDArray[np.integer], element: IntegerType) -> Attribute:
    """A dense array of the same bits as signed numbers."""
    dtype = np.dtype(f"<i{element.bitwidth // 8}")
    signed: Sequence[int] = np.ascontiguousarray(values).astype(dtype).tolist()
    return DenseArrayBase.from_list(element, signed)


def _integers(attribute: DenseArrayBase) -> NDArray[np.int64]:
    return np.array(numbers(attribute), np.int64)


def _words(attribute: DenseArrayBase, bits: int) -> NDArray[np.unsignedinteger]:
    """The numbers as unsigned words of the same bits."""
    found = _integers(attribute).view(np.uint64)
    return found if bits == 64 else found.astype(np.uint32)
