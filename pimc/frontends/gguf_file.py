"""The GGUF container: metadata and the places of the tensors, read without the tensors' bytes.
 Format: "GGUF" specification, version 3 (ggml project, docs/gguf.md).  All numbers are little endian.
Version 2 has the same layout.  Every count, length and offset is checked against the size of the file before
it is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pimc.diagnostics import InputError

Scalar: TypeAlias = int | float | bool | str
Metadata: TypeAlias = dict[str, "Scalar | list[Scalar]"]

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[dict[int, str]] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_DEFAULT_ALIGNMENT: Final = 32
_MAX_DIMENSIONS: Final = 8


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the file; ``shape`` is in the order of the file (fastest dimension first), ``offset``
    in bytes.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


@dataclass(frozen=True)
class GgufFile:
    """A parsed header: ``metadata`` by key, ``tensors`` by name, ``data_offset`` where tensor data begins
    (bytes).
    """

    path: Path
    version: int
    metadata: Metadata
    tensors: dict[str, TensorEntry]
    data_offset: int

    def text(self, key: str) -> str | None:
        """The string under ``key``; None if it is absent or no string."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """The integer under ``key``; None if it is absent or no integer."""
        value = self.metadata.get(key)
        return int(value) if isinstance(value, int) and not isinstance(value, bool) else None

    def number(self, key: str) -> float | None:
        """The number under ``key``; None if it is absent or no number."""
        value = self.metadata.get(key)
        return float(value) if isinstance(value, int | float) else None

    def strings(self, key: str) -> list[str]:
        """The array of strings under ``key``; empty if it is absent."""
        value = self.metadata.get(key)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def integers(self, key: str) -> list[int]:
        """The array of integers under ``key``; empty if it is absent."""
        value = self.metadata.get(key)
        return [int(item) for item in value if isinstance(item, int)] if isinstance(value, list) else []

    def raw(self) -> npt.NDArray[np.uint8]:
        """The file's bytes, mapped read-only."""
        return np.memmap(self.path, dtype=np.uint8, mode="r")


class _Reader:
    """A cursor over the bytes of the file; reading past the end is an InputError."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def need(self, count: int) -> int:
        """Advance by ``count`` bytes and return where they start."""
        start = self.at
        if count < 0 or start + count > len(self.data):
            raise InputError(
                f"the GGUF file is truncated: {count} bytes wanted at offset {start}, the file has {len(self.data)}",
                hint="download or copy the file again",
                where=str(self.path),
            )
        self.at = start + count
        return start

    def number(self, form: str) -> int | float:
        """One number in ``struct`` notation."""
        start = self.need(struct.calcsize(form))
        value: int | float = struct.unpack_from(form, self.data, start)[0]
        return value

    def count(self, form: str = "<Q") -> int:
        """One unsigned integer."""
        return int(self.number(form))

    def text(self) -> str:
        """A string: 64-bit length and UTF-8 bytes."""
        length = self.count()
        start = self.need(length)
        return bytes(self.data[start : start + length]).decode("utf-8", errors="replace")

    def value(self, type_id: int) -> Scalar | list[Scalar]:
        """A metadata value of the given type."""
        if type_id == _STRING:
            return self.text()
        if type_id == _ARRAY:
            return self.array()
        return self.number(self.form(type_id))

    def array(self) -> list[Scalar]:
        """An array: element type, count, elements."""
        element, count = self.count("<I"), self.count()
        if element == _STRING:
            if count * 8 > len(self.data):
                self.need(count * 8)
            return [self.text() for _ in range(count)]
        form = self.form(element)
        start = self.need(struct.calcsize(form) * count)
        values = np.frombuffer(self.data, dtype=np.dtype(form), count=count, offset=start)
        return list(values.tolist())

    def form(self, type_id: int) -> str:
        """``struct`` notation of a metadata type."""
        form = _SCALARS.get(type_id)
        if form is None:
            raise InputError(f"the GGUF file has metadata of unknown type {type_id}", where=str(self.path))
        return form


def read_gguf(path: Path) -> GgufFile:
    """Parse the header of a GGUF file; InputError if it is none, truncated, or of another version."""
    small = path.stat().st_size < 64  # an empty file cannot be mapped
    raw = np.frombuffer(path.read_bytes(), np.uint8) if small else np.memmap(path, np.uint8, "r")
    mapped = raw.data
    reader = _Reader(path, mapped)
    if bytes(mapped[:4]) != _MAGIC:
        raise InputError(
            "not a GGUF file: it does not begin with the bytes 'GGUF'",
            hint="is it complete?",
            where=str(path),
        )
    reader.need(4)
    version = reader.count("<I")
    if version not in _VERSIONS:
        raise InputError(f"GGUF version {version} is not supported, only 2 and 3 are", where=str(path))
    tensor_count, value_count = reader.count(), reader.count()
    metadata: Metadata = {}
    for _ in range(value_count):
        key = reader.text()
        metadata[key] = reader.value(reader.count("<I"))
    tensors = dict(_entry(reader) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    step = alignment if isinstance(alignment, int) and alignment > 0 else _DEFAULT_ALIGNMENT
    return GgufFile(path, version, metadata, tensors, -(-reader.at // step) * step)


def _entry(reader: _Reader) -> tuple[str, TensorEntry]:
    name = reader.text()
    rank = reader.count("<I")
    if rank > _MAX_DIMENSIONS:
        raise InputError(f"tensor {name!r} has {rank} dimensions", where=str(reader.path))
    shape = tuple(reader.count() for _ in range(rank))
    return name, TensorEntry(name, shape, reader.count("<I"), reader.count())
