"""Shapes and values of inputs as the command line gives them: ``NAME=1,128``, ``NAME=2,3``, ``NAME=@file.npy``."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import InputError, UsageError
from pimc.files import reason, regular_file
from pimc.ports import DTYPES, PortInfo

Array = NDArray[np.generic]


def shapes_of(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by name from ``NAME=1,128``; nothing after the sign is a scalar.

    Raises:
        UsageError: not numbers, or a name twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.partition("=")
        parts = [part.strip() for part in sizes.split(",")] if sizes.strip() else []
        if not all(part.isdecimal() for part in parts):
            raise UsageError(f"'{sizes}' is no shape", hint="whole numbers with commas: --shape input_ids=1,128")
        _add(found, name, tuple(int(part) for part in parts), "--shape")
    return found


def values_of(texts: Iterable[str], option: str = "--bind") -> dict[str, Array]:
    """Arrays by name from ``NAME=5`` (a scalar), ``NAME=2,3``, ``NAME=[[1,2],[3,4]]`` and ``NAME=@file.npy`` (the sign
    may be left out before a name that ends so).

    Raises:
        UsageError: not numbers, or a name twice.
        InputError: a file that is no array of plain numbers.
    """
    found: dict[str, Array] = {}
    for text in texts:
        name, _, values = text.partition("=")
        is_file = values.startswith("@") or values.endswith(".npy")
        _add(found, name, _read_npy(values.removeprefix("@")) if is_file else _numbers(values, option), option)
    return found


def shaped(given: Mapping[str, Array], ports: Sequence[PortInfo]) -> dict[str, Array]:
    """``given`` with plain lists in the shapes of the inputs, where those have one dimension that is not 1."""
    shapes = {port.name: port.shape for port in ports}
    found = dict(given)
    for name, array in given.items():
        shape = shapes.get(name, ())
        if array.ndim == 1 and [size for size in shape if size != 1] == [size for size in array.shape if size != 1]:
            found[name] = array.reshape(shape)
    return found


def stand_ins(given: Collection[str], ports: Sequence[PortInfo]) -> dict[str, Array]:
    """Zeros for the inputs that are not ``given``; the nearest number that is allowed where zero is not."""
    found: dict[str, Array] = {}
    for port in ports:
        if port.name not in given:
            low, high = port.range or (0, 0)
            found[port.name] = np.full(port.shape, min(max(low, 0), high)).astype(DTYPES[port.dtype])
    return found


def _add(found: dict[str, Array] | dict[str, tuple[int, ...]], name: str, value: object, option: str) -> None:
    if name.strip() in found:
        raise UsageError(f"{option} names '{name.strip()}' twice")
    found[name.strip()] = value  # type: ignore[assignment]  # one kind of value a dictionary


def _numbers(text: str, option: str) -> Array:
    hint = f"numbers with commas, nested lists, true and false, or @file.npy: {option} NAME=0,1"
    try:
        items = json.loads(f"[{text}]")
        array = np.asarray(items if len(items) > 1 else items[0])
    except (ValueError, IndexError, RecursionError) as error:
        raise UsageError(f"'{text}' is no list of numbers", hint=hint) from error
    if array.dtype.kind not in "bif":
        raise UsageError(f"'{text}' is no list of numbers", hint=hint)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _read_npy(path: str) -> Array:
    try:
        array = np.load(regular_file(path), allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot be read: {reason(error)}", where=path) from error
    except (ValueError, EOFError) as error:
        raise InputError(f"is no .npy file of plain numbers ({error})", where=path) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise InputError("holds no array of plain numbers", where=path, hint="numpy.save(path, array) writes one")
    return array
