"""The model metadata of a ``.pimx`` file (key ``model``): every known key checked, and limits for everything else.

They come from whoever wrote the file.  What passes here has the types, lengths and ranges that the rest of pimc expects
of them; what they mean for a program is checked where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType

from pimc.diagnostics import IsaError
from pimc.isa.program import Json
from pimc.limits import (
    EOS_IDS,
    JSON_DEPTH,
    JSON_VALUES,
    NAME_CHARACTERS,
    OVERRIDES,
    PORTS,
    SEQUENCE,
    SPECIAL_TOKENS,
    TEMPLATE_CHARACTERS,
    Limit,
)

_INTEGERS = range(-(1 << 63), 1 << 64)
_HINT = "the file is damaged, or not written by pimc"


def check_model(value: Json | Mapping[str, Json], where: str) -> Mapping[str, Json]:
    """``value`` if it is model metadata.

    Raises:
        IsaError: it is no object, a known key has a value that it cannot have, or something is beyond its limit.
    """
    if not isinstance(value, Mapping):
        raise _malformed(where, "it must be an object")
    _check_size(value, where)
    for key, check in _KNOWN.items():
        if key in value:
            check(value[key], where, key)
    return value


def _malformed(where: str, message: str) -> IsaError:
    return IsaError(f"malformed: {message}", where=where, hint=_HINT)


def _check_size(value: Mapping[str, Json], where: str) -> None:
    """Bounds on number, depth, integers and texts of anything."""
    level: list[object] = [value]
    count = 0
    for _ in range(JSON_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, Mapping):
                inner += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple):
                inner += item
            else:
                _check_leaf(item, where)
        count += len(inner)
        if count > JSON_VALUES:
            raise _malformed(where, f"it has more than {JSON_VALUES.text}")
        level = inner
        if not level:
            return
    raise _malformed(where, f"it is nested deeper than {JSON_DEPTH.text}")


def _check_leaf(item: object, where: str) -> None:
    if isinstance(item, int) and item not in _INTEGERS:
        raise _malformed(where, "it has an integer of more than 64 bits")
    if isinstance(item, float) and not isfinite(item):
        raise _malformed(where, "it has an infinite number")
    if isinstance(item, str):
        _check_text(item, where, "a text", TEMPLATE_CHARACTERS)


def _check_text(value: object, where: str, what: str, longest: Limit) -> None:
    if not isinstance(value, str) or len(value) > longest:
        raise _malformed(where, f"{what} must be a text of at most {longest.text}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _malformed(where, f"{what} is not Unicode (a lone surrogate)") from None


def _name(value: Json, where: str, key: str) -> None:
    _check_text(value, where, key, NAME_CHARACTERS)


def _template(value: Json, where: str, key: str) -> None:
    if value is not None:
        _check_text(value, where, key, TEMPLATE_CHARACTERS)


def _integer(value: Json, where: str, key: str, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= SEQUENCE:
        raise _malformed(where, f"{key} must be a whole number from {least} to {int(SEQUENCE)}")


def _count(value: Json, where: str, key: str) -> None:
    _integer(value, where, key, 1)


def _items(value: Json, where: str, key: str, longest: Limit) -> list[Json]:
    if not isinstance(value, list) or len(value) > longest:
        raise _malformed(where, f"{key} must be a list of at most {longest.text}")
    return value


def _token_numbers(value: Json, where: str, key: str) -> None:
    for item in _items(value, where, key, EOS_IDS):
        _integer(item, where, f"each of {key}", 0)


def _special(value: Json, where: str, key: str) -> None:
    if not isinstance(value, Mapping) or len(value) > SPECIAL_TOKENS:
        raise _malformed(where, f"{key} must be an object of at most {SPECIAL_TOKENS.text}")
    for name, token in value.items():
        _check_text(name, where, f"a name in {key}", NAME_CHARACTERS)
        _check_text(token, where, f"a token in {key}", NAME_CHARACTERS)


def _overrides(value: Json, where: str, key: str) -> None:
    for item in _items(value, where, key, OVERRIDES):
        _check_text(item, where, f"each of {key}", NAME_CHARACTERS)


def _ports(value: Json, where: str, key: str) -> None:
    """By entry point, inputs and outputs as lists of [name, element type]."""
    if not isinstance(value, Mapping):
        raise _malformed(where, f"{key} must be an object")
    for entry, sides in value.items():
        place = f"{key}.{entry[:64]}"
        if not isinstance(sides, Mapping) or set(sides) != {"inputs", "outputs"}:
            raise _malformed(where, f"{place} must have inputs and outputs")
        for side, ports in sides.items():
            for port in _items(ports, where, f"{place}.{side}", PORTS):
                if not isinstance(port, list) or len(port) != 2:
                    raise _malformed(where, f"{place}.{side} must hold pairs of name and type")
                for text in port:
                    _check_text(text, where, f"each name and type in {place}.{side}", NAME_CHARACTERS)


_KNOWN: Mapping[str, Callable[[Json, str, str], None]] = MappingProxyType(
    {
        "name": _name,
        "max_seq": _count,
        "prefill_chunk": _count,
        "eos_ids": _token_numbers,
        "start_ids": _token_numbers,
        "chat_template": _template,
        "special": _special,
        "target_overrides": _overrides,
        "ports": _ports,
    }
)
