"""Weights in a ``.safetensors`` file: those that go with an IR dump, or a checkpoint's.

The file may come from anywhere: the safetensors library checks its header, and the arrays are views of the mapped
file, so that a size in it costs no memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pimc.atomic import atomic_path
from pimc.diagnostics import InputError
from pimc.frontends.weights import ModelWeights
from pimc.ir.weights import WeightArray

_DTYPES: Mapping[str, str] = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
_HINT = "f16, bf16, f32 or f64 are read; `pimc compile --dump-ir DIR` writes such a file"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file, ``begin`` to ``end`` in bytes; none of it is in memory."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def read(self) -> WeightArray:
        """The values: mapped where numpy has their type, so that memory is given back with the array.

        Raises InputError where the file is no longer as it was.
        """
        if self.begin == self.end:  # nothing cannot be mapped
            return np.zeros(self.shape, np.float32)
        try:
            raw = np.memmap(self.path, np.uint8, "r", self.begin, self.end - self.begin)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read any more: {error}", where=str(self.path)) from error
        return _array(raw, self.dtype, self.shape)


def read_weights(path: Path) -> tuple[ModelWeights, Mapping[str, str]]:
    """The weights of a file and its metadata, a text by key; errors as of :func:`list_tensors`."""
    tensors, metadata = list_tensors(path)
    return ModelWeights({name: tensor.read() for name, tensor in tensors.items()}), metadata


def list_tensors(path: Path) -> tuple[dict[str, StoredTensor], Mapping[str, str]]:
    """The tensors of a safetensors file by name, unread, and its metadata, a text by key.

    Raises:
        InputError: it cannot be read, is no safetensors file, or holds other than floating-point numbers.
    """
    from safetensors import SafetensorError, safe_open

    where = str(path)
    if not path.is_file():
        raise InputError("there is no such file of weights", where=where)
    try:
        with safe_open(path, framework="numpy") as file:  # checks sizes and offsets
            metadata: dict[str, str] = dict(file.metadata() or {})
        data = np.memmap(path, np.uint8, mode="r")
    except (SafetensorError, ValueError) as error:
        raise InputError(f"is no safetensors file: {error}", where=where) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=where) from error
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise InputError(f"weight {name!r} has elements of type {entry['dtype']}", hint=_HINT, where=where)
        begin, end = entry["data_offsets"]
        tensors[name] = StoredTensor(path, entry["dtype"], tuple(entry["shape"]), start + begin, start + end)
    return tensors, metadata


def _array(raw: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], dtype: str, shape: tuple[int, ...]) -> WeightArray:
    values = raw.view(_DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if dtype == "F64" else values


def write_weights(path: Path, weights: ModelWeights, names: Iterable[str], metadata: Mapping[str, str]) -> None:
    """Write weights atomically, as the hardware stores them: rounded to fp16 where no finite value overflows.

    Weights that have a shape and no values are left out.
    """
    from safetensors.numpy import save_file

    arrays = {name: _stored(weights[name]) for name in names if weights.has_values(name)}
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # the library's files are for the user alone
        temporary.unlink()
        save_file(arrays, temporary, dict(metadata))
        temporary.chmod(mode)


def _stored(values: WeightArray) -> WeightArray:
    with np.errstate(over="ignore", under="ignore"):
        halves = np.ascontiguousarray(values.astype(np.float16))
    if (np.isfinite(halves) == np.isfinite(values)).all():
        return halves
    return np.ascontiguousarray(values.astype(np.float32))
