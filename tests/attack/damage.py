"""Damage to bytes, texts and JSON values."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""A value of JSON, whose parts are taken and put without knowing their types."""

NUMBERS = (
    0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 63, 64, 255, 256, 1000, 4096, 65535, 65536, 1 << 20, (1 << 31) - 1, 1 << 31,
    1 << 32, 1 << 40, 1 << 48, (1 << 62) - 1, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 100, -1, -2, -128, -(1 << 31),
    -(1 << 63), -(1 << 64),
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "\n", "\x1b[31m", "\u202e", "x", "x" * 1000, "%s%n", "../../x", "/dev/zero", "é世🌍", "NaN", "true",
    "[]", "{}", "\\", '"', "'", "#", "=", "1e999", "9" * 5000, "(" * 500, "[" * 2000,
)  # fmt: skip


def number(rng: random.Random) -> int:
    """A number that programs are seldom tried with."""
    return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.getrandbits(rng.randint(1, 80))


def damage_bytes(rng: random.Random, data: bytes, end: int | None = None) -> bytes:
    """Some bytes of the first ``end`` flipped, removed, repeated or replaced."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(max(1, min(len(result), end or len(result))))
        size = rng.choice((1, 2, 4, 8, rng.randint(1, 64)))
        action = rng.randrange(6)
        if action == 0 and result:
            result[at % len(result)] ^= 1 << rng.randrange(8)
        elif action == 1:
            del result[at : at + size]
        elif action == 2:
            result[at:at] = result[at : at + size]
        elif action == 3:
            result[at : at + size] = rng.randbytes(size)
        elif action == 4:
            result[at : at + size] = rng.choice((b"\0", b"\xff", b"0", b"9", b"[", b'"')) * size
        elif rng.random() < 0.2:
            del result[at:]
    return bytes(result)


def damage_text(rng: random.Random, data: bytes, words: Sequence[str], others: Sequence[bytes]) -> bytes:
    """A text with tokens, numbers and lines changed, moved, repeated, or taken from ``others`` and ``words``."""
    if rng.random() < 0.1:
        return damage_bytes(rng, data)
    text = data.decode(errors="replace")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        text = _damage_once(rng, text, words, others)
    return text[: 1 << 16].encode(errors="replace")


def _damage_once(rng: random.Random, text: str, words: Sequence[str], others: Sequence[bytes]) -> str:
    action = rng.randrange(8)
    if action in (0, 1):  # a number
        found = list(re.finditer(r"-?\d+", text))
        if found:
            match = rng.choice(found)
            return text[: match.start()] + str(number(rng)) + text[match.end() :]
    if action in (2, 3):  # a token
        tokens = list(re.finditer(r"[A-Za-z_][\w.]*|[^\sA-Za-z_]", text))
        if tokens:
            match = rng.choice(tokens)
            other = rng.choice(tokens)[0] if rng.random() < 0.4 else rng.choice([*words, rng.choice(TEXTS)])
            keep = match[0] if rng.random() < 0.2 else ""
            return text[: match.start()] + keep + other + text[match.end() :]
    lines = text.split("\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    if action == 4:
        del lines[at : at + rng.choice((1, 1, 3))]
    elif action == 5:
        lines[to:to] = lines[at : at + rng.choice((1, 1, 5))] * rng.choice((1, 1, 2, 50))
    elif action == 6:
        lines[at], lines[to] = lines[to], lines[at]
    elif others:
        donor = rng.choice(others).decode(errors="replace").split("\n")
        lines[to:to] = [rng.choice(donor) for _ in range(rng.choice((1, 1, 4)))]
    return "\n".join(lines)


def damage_json(rng: random.Random, value: Json) -> Json:
    """A copy of a JSON value with some parts replaced, removed, repeated or moved."""
    result = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        holder, key = _place(rng, result)
        if holder is None:
            return _leaf(rng)
        action = rng.randrange(6)
        if action < 3:
            holder[key] = _near(rng, holder[key])
        elif action == 3:
            del holder[key]
        elif action == 4:
            donor, other = _place(rng, result)
            holder[key] = copy.deepcopy(donor[other]) if donor is not None else _leaf(rng)
        elif isinstance(holder, list):
            holder[key:key] = copy.deepcopy(holder[key : key + 1]) * rng.choice((1, 2, 100))
        else:
            holder[rng.choice(TEXTS)[:2000]] = copy.deepcopy(holder[key])
    return result


def _place(rng: random.Random, value: Json) -> tuple[Json, Json]:
    """A container in ``value`` and a key of it; deep ones as often as flat ones."""
    places: list[tuple[Json, Json]] = []
    pending = [value]
    while pending and len(places) < 5000:
        item = pending.pop()
        keys = item.keys() if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            places.append((item, key))
            pending.append(item[key])
    return rng.choice(places) if places else (None, None)


def _near(rng: random.Random, value: object) -> object:
    """Something in the place of ``value``: mostly of its own type."""
    if rng.random() < 0.3:
        return _leaf(rng)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((number(rng), value + 1, value - 1, -value, value * 2))
    if isinstance(value, str):
        return rng.choice((rng.choice(TEXTS), value + rng.choice(TEXTS), value[:-1], value * 2))
    return _leaf(rng)


def _leaf(rng: random.Random) -> object:
    nested: object = 0
    for _ in range(rng.choice((1, 20, 200))):
        nested = [nested]
    return rng.choice((None, True, number(rng), rng.choice(TEXTS), 1.5, -0.0, 1e308, [], {}, nested))
