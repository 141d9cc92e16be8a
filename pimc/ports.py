"""Inputs and outputs as the model has them, and as the hardware has them.

The machine's ports hold f16 and i32.  A model's inputs and outputs have other types (f32, i64, booleans ...) and any
names; both travel in the removable metadata of a binary, so that arrays go in and come out as the model's.  Without
them they are the ports' own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pimc.diagnostics import InputError
from pimc.isa.program import Entry, Json, Port

Array = NDArray[np.generic]

#: The key of the model metadata of a binary: entry -> signature.
PORTS_KEY = "ports"
#: Element types of models, and the numpy types of their arrays (numpy has no bfloat16: its values come as float32).
DTYPES: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "f16": np.dtype(np.float16),
        "bf16": np.dtype(np.float32),
        "f32": np.dtype(np.float32),
        "f64": np.dtype(np.float64),
        "i1": np.dtype(np.bool_),
        **{f"i{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
        **{f"ui{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    }
)
_LONGEST_NAME = 100
_INT32 = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class ModelPort:
    """An input or output of a model: its name and element type (a key of ``DTYPES``)."""

    name: str
    dtype: str


@dataclass(frozen=True)
class PortInfo:
    """An input or output of an entry as a caller sees it.

    ``dtype`` is the model's element type (a key of ``DTYPES``), ``range`` the least and the greatest value of integers
    that go in (None: floats, booleans and outputs).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    range: tuple[int, int] | None = None

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        return f"{self.name}: {sizes} {self.dtype}" + (f", {self.range[0]} to {self.range[1]}" if self.range else "")

    def to_json(self) -> dict[str, Json]:
        """The JSON object of ``pimc info --json``."""
        allowed = list(self.range) if self.range else None
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "range": allowed}


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of an entry, in order."""

    inputs: tuple[ModelPort, ...]
    outputs: tuple[ModelPort, ...]

    def to_json(self) -> Json:
        """The JSON object that :func:`signature_of` reads."""
        return {
            "inputs": [[port.name, port.dtype] for port in self.inputs],
            "outputs": [[port.name, port.dtype] for port in self.outputs],
        }


def identifiers(names: Sequence[str]) -> list[str]:
    """Names of ports for names of a model: letters, digits, ``_`` and ``.``, each one once."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_.]", "_", name)[:_LONGEST_NAME]
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
        number, candidate = 0, plain
        while candidate in found or (candidate != name and candidate in names):
            number += 1
            candidate = f"{plain}_{number}"
        found.append(candidate)
    return found


def signature_of(model: Mapping[str, Json] | None, name: str, entry: Entry) -> Signature:
    """The signature of an entry: that of the model metadata, else the ports' own names and types.

    Raises:
        InputError: the metadata are malformed, or not those of the entry.
    """
    described = (model or {}).get(PORTS_KEY)
    if described is None:
        return Signature(*(tuple(ModelPort(port.name, port.dtype) for port in side) for side in _sides(entry)))
    signature = described.get(name) if isinstance(described, Mapping) else None
    if not isinstance(signature, Mapping):
        raise InputError(f"the binary's metadata do not describe the entry point '{name}'")
    sides = zip(("inputs", "outputs"), _sides(entry), strict=True)
    return Signature(*(_read_side(signature.get(key), ports, f"{name}, {key}") for key, ports in sides))


def describe(model: Mapping[str, Json] | None, name: str, entry: Entry) -> tuple[tuple[PortInfo, ...], ...]:
    """The inputs and the outputs of an entry, as a caller sees them; InputError as of :func:`signature_of`."""
    signature = signature_of(model, name, entry)
    inputs = tuple(
        PortInfo(own.name, own.dtype, port.shape, allowed_range(own, port) if _bounded(own, port) else None)
        for own, port in zip(signature.inputs, entry.inputs, strict=True)
    )
    outputs = tuple(
        PortInfo(own.name, own.dtype, port.shape) for own, port in zip(signature.outputs, entry.outputs, strict=True)
    )
    return inputs, outputs


def _bounded(model: ModelPort, port: Port) -> bool:
    return port.dtype == "i32" and model.dtype != "i1"


def _sides(entry: Entry) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    return entry.inputs, entry.outputs


def _read_side(value: Json, ports: Sequence[Port], where: str) -> tuple[ModelPort, ...]:
    """The inputs or outputs of a signature as the metadata of a binary (which may be hostile) say them."""
    found: list[ModelPort] = []
    for item in value if isinstance(value, list) else ():
        match item:
            case [str(name), str(dtype)] if dtype in DTYPES:
                found.append(ModelPort(name, dtype))
            case _:
                raise InputError("the binary's metadata are malformed", where=where)
    if len(found) != len(ports) or len({port.name for port in found}) != len(found):
        raise InputError("the binary's metadata do not fit its ports", where=where)
    return tuple(found)


def to_port(value: ArrayLike, model: ModelPort, port: Port) -> Array:
    """An array of the model as its port takes it; a single number is good for a port of one element.

    Raises:
        InputError: another shape or kind of number, a value that the hardware's type or the model's does not have, or
            one outside of the port's range.
    """
    what = f"input {model.name!r}"
    array = as_array(value, what)
    if not array.shape and port.elements == 1:
        array = array.reshape(port.shape)
    if array.shape != port.shape:
        raise InputError(f"{what} has the shape {array.shape}, not {port.shape}")
    wanted = "biu" if port.dtype == "i32" else "b" if model.dtype == "i1" else "fiu"
    kind = "f" if array.dtype.name == "bfloat16" else array.dtype.kind
    if kind not in wanted:
        raise InputError(f"{what} holds {array.dtype}, the model takes {model.dtype}")
    if port.dtype == "i32":
        whole = array.astype(np.int32)
        if port.range is None:
            _exact(whole, np.asarray(whole == array), array, what, "32-bit integers")
        _check_range(array, allowed_range(model, port), what)
        return whole
    with np.errstate(over="ignore", under="ignore"):
        converted = array.astype(np.float16 if port.dtype == "f16" else np.float32)
        fits = np.isfinite(converted) | ~np.isfinite(array.astype(np.float64))
    return _exact(converted, fits, array, what, "fp16, which ends at 65504")


def as_array(value: ArrayLike, what: str) -> Array:
    """``value`` as an array; InputError where it is none (rows of unequal length, a tensor that needs gradients)."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{what} is no array of numbers: {reason}") from error


def allowed_range(model: ModelPort, port: Port) -> tuple[int, int]:
    """The least and the greatest value that an input of integers may have: what its port and the model's type allow."""
    kind, bits = DTYPES[model.dtype].kind, 8 * DTYPES[model.dtype].itemsize
    low, high = {"b": (0, 1), "u": (0, 2**bits - 1), "i": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)}.get(kind, _INT32)
    least, greatest = port.range or _INT32
    return max(low, least), min(high, greatest)


def _check_range(array: Array, allowed: tuple[int, int], what: str) -> None:
    if array.dtype.kind == "b" or not array.size:
        return
    low, high = allowed
    fits = np.greater_equal(array, low) & np.less_equal(array, high)
    if not fits.all():
        place = tuple(int(i) for i in np.argwhere(~fits)[0])
        at = f" at {list(place)}" if array.size > 1 else ""
        raise InputError(f"{what} is {array[place]}{at}; the program takes {low} to {high}")


def _exact(converted: Array, fits: NDArray[np.bool_], array: Array, what: str, domain: str) -> Array:
    if not bool(np.all(fits)):
        place = tuple(int(i) for i in np.argwhere(~fits)[0])
        raise InputError(
            f"{what} does not fit the hardware's {domain}: element {list(place)} is {array[place]}",
            hint="scale the model's input",
        )
    return converted


def from_port(value: Array, model: ModelPort) -> Array:
    """An array of a port as the model has it (integers modulo their width)."""
    if model.dtype == "i1":
        return value.astype(np.bool_)
    return value.astype(DTYPES[model.dtype], copy=False)
