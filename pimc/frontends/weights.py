"""Weights of an imported model: tensors by name, and views of them that the IR refers to.
 A name in the IR is the name of a parameter in the checkpoint, followed by any number of view suffixes, read
from left to right: ``^T`` is the transpose of a matrix, ``[a:b]`` are the rows (elements of a vector) a to
b-1, ``[nxa:b]`` rows a to b-1 of each of n equal groups of rows.  Views share memory with their parameter where
numpy can, so that a pass can ask for a part of a weight without moving data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from pimc.diagnostics import InputError
from pimc.ir.constants import LARGEST_HALF
from pimc.ir.weights import WeightArray, all_finite, array_digest, split_views, unknown_weight
from pimc.timings import stage


class ModelWeights:
    """Named arrays (a :class:`pimc.ir.weights.WeightStore`); a name with view suffixes gives a view.

    A weight may be *absent*: of a model on PyTorch's meta device, or imported for its shapes, only those are known.  It
    may be *deferred*: its values stay in a file until they are asked for, and only the last ones are kept.
    """

    def __init__(self, arrays: Mapping[str, WeightArray]) -> None:
        self._arrays = dict(arrays)
        self._absent: set[str] = set()
        self._readers: dict[str, Callable[[], WeightArray]] = {}
        self._last: tuple[str, WeightArray] | None = None

    def __getitem__(self, name: str) -> WeightArray:
        if not self.has_values(name):
            raise InputError(
                f"weight {name!r} has a shape and no values: the model is on the meta device",
                hint="load the model's weights to compile it; without them it can be compiled with --shapes-only",
            )
        base = split_views(name)[0]
        return self._view(name, self._values(base) if base in self._readers else None)

    def _values(self, name: str) -> WeightArray:
        """The values of a deferred weight.  The last ones are kept: views of one weight are asked for in a row."""
        if self._last is None or self._last[0] != name:
            self._last = None
            value = self._readers[name]()
            check_fp16(name, value)
            self._last = name, value
        return self._last[1]

    def _view(self, name: str, value: WeightArray | None = None) -> WeightArray:
        """A weight or a view of it; of ``value``, if that is given."""
        base, views = split_views(name)
        if base not in self._arrays:
            raise unknown_weight(base, self._arrays)
        value = self._arrays[base] if value is None else value
        for view in views:
            value = _apply(value, view, name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and split_views(name)[0] in self._arrays

    def names(self) -> Iterator[str]:
        """Names of the weights, without views, sorted."""
        return iter(sorted(self._arrays))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight or a view, absent or not."""
        return self._view(name).shape

    def has_values(self, name: str) -> bool:
        """Whether the values of a weight are known, not only its shape."""
        return split_views(name)[0] not in self._absent

    def is_deferred(self, name: str) -> bool:
        """Whether the values of a weight stay in a file until they are asked for."""
        return split_views(name)[0] in self._readers

    def digest(self, name: str) -> str:
        """SHA-256 of element type, shape and values (hexadecimal)."""
        return array_digest(self[name])

    @property
    def some_absent(self) -> bool:
        """Whether a weight is absent: then what is computed for the program's memory may be, too."""
        return bool(self._absent)

    def add(self, name: str, value: WeightArray, *, absent: bool = False) -> None:
        """Add a weight made by a frontend (a table of positions); the name must be new.  Of an ``absent`` one only
        the shape counts (:func:`absent_array`).
        """
        if name in self._arrays:
            raise InputError(f"the model already has a weight {name!r}")
        self._arrays[name] = value
        if absent:
            self._absent.add(name)

    def add_deferred(self, name: str, shape: tuple[int, ...], read: Callable[[], WeightArray]) -> None:
        """Add a weight whose values ``read`` gives when asked; they are checked then (:func:`check_fp16`)."""
        self.add(name, absent_array(shape))
        self._readers[name] = read

    def add_reshaped(self, name: str, source: str, shape: tuple[int, ...]) -> None:
        """Add a weight that is another one in another shape (a convolution's as a matrix)."""
        if split_views(source)[0] in self._readers:
            self.add_deferred(name, shape, lambda: self[source].reshape(shape))
        else:
            self.add(name, self._view(source).reshape(shape), absent=not self.has_values(source))


def absent_array(shape: tuple[int, ...]) -> WeightArray:
    """A stand-in for a weight without values: the shape, and no memory."""
    return np.broadcast_to(np.float32(np.nan), shape)


def check_fp16(name: str, value: WeightArray) -> None:
    """InputError with the tensor's name if a weight is not finite or overflows fp16."""
    if value.size == 0 or (value.dtype == np.float16 and all_finite(np.asarray(value, np.float16))):
        return
    low, high = float(value.min()), float(value.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"weight {name!r} holds a NaN or an infinity", hint="the checkpoint is damaged")
    worst = low if -low > high else high
    # The bound at which rounding to nearest even gives infinity is half a step beyond the largest number.
    if abs(worst) >= LARGEST_HALF + 16.0:
        raise InputError(
            f"weight {name!r} does not fit fp16: it holds {worst:g}, the largest fp16 number is {LARGEST_HALF:g}",
            hint="rescale the model; the hardware stores weights as fp16",
        )


@stage("check the weights")
def check_all_fp16(weights: ModelWeights, names: Iterable[str]) -> None:
    """:func:`check_fp16` of every weight in ``names`` that has values here; deferred ones are checked when read."""
    for name in names:
        if weights.has_values(name) and not weights.is_deferred(name):
            check_fp16(name, weights[name])


def _apply(value: WeightArray, view: str, name: str) -> WeightArray:
    if view == "^T":
        if value.ndim != 2:
            raise InputError(f"weight {name!r}: a transpose needs a matrix, this has shape {value.shape}")
        return value.T
    groups, _, bounds = view[1:-1].rpartition("x")
    start, stop = (int(bound) for bound in bounds.split(":"))
    count = int(groups or 1)
    size, rest = divmod(value.shape[0], count) if count else (0, 1)
    if rest or not 0 <= start <= stop <= size:
        raise InputError(f"weight {name!r}: rows {start}:{stop} of {count} group(s) of {value.shape[0]} rows")
    if count == 1:
        return value[start:stop]
    return value.reshape(count, size, *value.shape[1:])[:, start:stop].reshape(-1, *value.shape[1:])
