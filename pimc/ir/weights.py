"""Weights live outside the IR: a store maps names to arrays, the IR holds names, shapes and element types.

Names are those of the checkpoint.  A *family* is the set of the same weight in all layers, written with ``*``
in the place of the layer number: ``model.layers.*.mlp.up_proj.weight``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from pimc.diagnostics import InputError

WeightArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16]

_EXPONENT: Final = np.uint16(0x7C00)
#: Elements looked at in one step, so that a large weight needs no memory of its size.
_BLOCK: Final = 1 << 22
_SUFFIX: Final = re.compile(r"(\^T|\[(?:[0-9]{1,12}x)?[0-9]{1,12}:[0-9]{1,12}\])$")


@dataclass(frozen=True)
class FamilyName:
    """A weight name with at most one ``*``: the name of one weight, or of the same weight in every layer."""

    text: str

    def __post_init__(self) -> None:
        if self.text.count("*") > 1:
            raise InputError(f"weight name {self.text!r} has more than one '*'")

    @property
    def is_family(self) -> bool:
        """Whether the name stands for several weights."""
        return "*" in self.text

    def member(self, index: int) -> str:
        """The name of the weight of layer ``index``; of a name without ``*`` the name itself."""
        return self.text.replace("*", str(index))

    def index_of(self, name: str) -> int | None:
        """The layer number for which ``name`` is a member; None if it is none."""
        if not self.is_family:
            return None
        before, after = self.text.split("*")
        match = re.fullmatch(f"{re.escape(before)}([0-9]{{1,9}}){re.escape(after)}", name)
        return int(match[1]) if match else None

    def members(self, names: Iterable[str]) -> dict[int, str]:
        """Layer number -> name for those of ``names`` that belong to the family, in order of layer."""
        found = {index: name for name in names if (index := self.index_of(name)) is not None}
        return dict(sorted(found.items()))

    @staticmethod
    def of(name: str, prefix: str) -> FamilyName:
        """The family of ``name``, whose layer number follows ``prefix`` (``model.layers.``); else the name
        itself.
        """
        match = re.fullmatch(f"({re.escape(prefix)})\\d+(\\..*)?", name)
        return FamilyName(f"{match[1]}*{match[2] or ''}" if match else name)


@runtime_checkable
class WeightStore(Protocol):
    """Read access to the weights of a model; implementations may load lazily (mmap, GGUF, torch)."""

    def __getitem__(self, name: str) -> WeightArray:
        """The values of a weight, float32 or float16; InputError if there is no such weight."""

    def __contains__(self, name: object) -> bool:
        """Whether there is such a weight."""

    def names(self) -> Iterator[str]:
        """All names, sorted."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight without reading its values; InputError if there is no such weight."""

    def digest(self, name: str) -> str:
        """SHA-256 (hex) of element type, shape and values of a weight."""


def split_views(name: str) -> tuple[str, tuple[str, ...]]:
    """The base name and the view suffixes of ``name`` (:mod:`pimc.frontends.weights`), outermost last."""
    views: list[str] = []
    while match := _SUFFIX.search(name):
        views.append(match.group(1))
        name = name[: match.start()]
    return name, tuple(reversed(views))


def all_finite(halves: npt.NDArray[np.float16]) -> bool:
    """Whether fp16 numbers are neither infinities nor NaN, by their exponents: many times as fast as ``isfinite``."""
    bits = halves.reshape(1, -1).view(np.uint16)[0] if halves.flags.c_contiguous else halves.view(np.uint16)
    blocks = (bits[start : start + _BLOCK] for start in range(0, len(bits), _BLOCK)) if bits.ndim == 1 else (bits,)
    return not any(((block & _EXPONENT) == _EXPONENT).any() for block in blocks)


def array_digest(array: npt.NDArray[np.generic]) -> str:
    """SHA-256 (hex) of element type, shape and little-endian values."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    state = hashlib.sha256(f"{array.dtype.name}:{'x'.join(map(str, array.shape))}:".encode())
    state.update(little.tobytes())
    return state.hexdigest()


def store_digest(store: WeightStore) -> str:
    """SHA-256 (hex) over the names and digests of all weights."""
    state = hashlib.sha256()
    for name in store.names():
        state.update(f"{name}={store.digest(name)}\n".encode())
    return state.hexdigest()


class InMemoryWeights:
    """Weights in a dictionary; other float types are converted to float32."""

    def __init__(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        self._arrays = {name: _as_weight(name, value) for name, value in arrays.items()}

    def __getitem__(self, name: str) -> WeightArray:
        try:
            return self._arrays[name]
        except KeyError:
            raise unknown_weight(name, self._arrays) from None

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def names(self) -> Iterator[str]:
        """All names, sorted."""
        return iter(sorted(self._arrays))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight."""
        return self[name].shape

    def digest(self, name: str) -> str:
        """SHA-256 (hex) of element type, shape and values of a weight."""
        return array_digest(self[name])


def unknown_weight(name: str, names: Iterable[str]) -> InputError:
    """The error for a name that a store does not have, with the nearest names as a hint."""
    import difflib

    close = difflib.get_close_matches(name, list(names), n=3)
    return InputError(f"no weight {name!r}", hint=f"did you mean {', '.join(close)}?" if close else None)


def _as_weight(name: str, value: npt.ArrayLike) -> WeightArray:
    array = np.asarray(value)
    if array.dtype == np.float16:
        return np.asarray(array, dtype=np.float16)
    if array.dtype.kind not in "fiu":
        raise InputError(f"weight {name!r} has element type {array.dtype}, which is no number")
    return np.asarray(array, dtype=np.float32)
