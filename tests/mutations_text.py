"""Damaged texts: seeded mutations of IR and assembly, by bytes, tokens, numbers, attributes and lines."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

Mutation = Callable[[random.Random, str], str]

#: Numbers at the ends of types, and beyond all of them.
NUMBERS = (
    "0", "1", "-1", "2", "3", "7", "255", "65536", "2147483647", "2147483648", "-2147483648", "4294967296",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "1" + "0" * 30, "9" * 5000,
    "0x7fffffffffffffff",
)  # fmt: skip
#: Texts that readers trip over: of other types, of another alphabet, empty, unclosed.
WORDS = (
    '"', "(", ")", "{", "}", "<", ">", "[", "]", ",", "=", "%", "@", "#", "!", "^", "inf", "nan", "1e400", "-0.0",
    "index", "f16", "f32", "i1", "i642", "ui8", "none", "unit", "true", "dense<1>", "tensor<0xf16>", "tensor<*xf16>",
    "tensor<?xf16>", "tensor<f16>", '"\\00"', '"*"', '"é"', "٣", "@main", "loc(unknown)", "array<i64>", "[]", "{}",
)  # fmt: skip
_TOKEN = re.compile(r"\"[^\"\n]*\"|[A-Za-z_.$][\w.$]*|[%@#!^][\w.$*]+|-?[0-9][\w.]*|\S")
_NUMBER = re.compile(r"(?<![\w.])-?[0-9]+(?![\w])")
_STRING = re.compile(r"\"[^\"\n]*\"")
_ATTRIBUTE = re.compile(r"[\w.]+ = [^,{}<>\n]+,? ?")


def damage_byte(rng: random.Random, text: str) -> str:
    """Replace, insert or remove one character."""
    at = rng.randrange(len(text) + 1)
    new = chr(rng.choice((rng.randrange(32, 127), rng.randrange(0, 32), rng.randrange(128, 0x3000))))
    return text[:at] + rng.choice((new, new, "")) + text[at + rng.randrange(2) :]


def swap_tokens(rng: random.Random, text: str) -> str:
    """Put one token of the text in the place of another."""
    tokens = list(_TOKEN.finditer(text))
    if len(tokens) < 2:
        return text
    return _put(text, rng.choice(tokens), rng.choice(tokens)[0])


def strange_token(rng: random.Random, text: str) -> str:
    """Put a strange word in the place of a token."""
    tokens = list(_TOKEN.finditer(text))
    return _put(text, rng.choice(tokens), rng.choice(WORDS)) if tokens else text


def change_number(rng: random.Random, text: str) -> str:
    """Replace a number: by an extreme one, a near one, or another of the text."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return text
    old = rng.choice(found)
    near = str(int(old[0]) + rng.choice((-1, 1))) if len(old[0]) < 30 else "0"
    return _put(text, old, rng.choice((rng.choice(NUMBERS), near, rng.choice(found)[0])))


def swap_strings(rng: random.Random, text: str) -> str:
    """Put one quoted text in the place of another: names of operations, weights, entries."""
    found = list(_STRING.finditer(text))
    return _put(text, rng.choice(found), rng.choice(found)[0]) if found else text


def drop_attribute(rng: random.Random, text: str) -> str:
    """Remove one ``name = value``, or put it where another is."""
    found = list(_ATTRIBUTE.finditer(text))
    if not found:
        return text
    return _put(text, rng.choice(found), rng.choice(("", rng.choice(found)[0])))


def change_lines(rng: random.Random, text: str) -> str:
    """Delete, repeat or move a line, or cut the text."""
    lines = text.split("\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(to, lines[at])
    elif kind == 2:
        lines.insert(to, lines.pop(at))
    else:
        return text[: rng.randrange(len(text) + 1)]
    return "\n".join(lines)


#: All kinds; those that leave the syntax alone come oftener, as they reach further.
MUTATIONS: Sequence[Mutation] = (
    damage_byte, strange_token, swap_tokens, swap_tokens, change_number, change_number, change_number,
    swap_strings, swap_strings, drop_attribute, drop_attribute, change_lines, change_lines,
)  # fmt: skip


def mutate(seed: int | str, text: str) -> str:
    """A damaged copy of a text: one to three mutations, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = rng.choice(MUTATIONS)(rng, text)
    return text


def mutants(seed: int | str, texts: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """``count`` damaged texts, each with the seed that makes it."""
    for number in range(count):
        name = f"{seed}-{number}"
        yield name, mutate(name, texts[random.Random(name + "t").randrange(len(texts))])


def _put(text: str, at: re.Match[str], new: str) -> str:
    return text[: at.start()] + new + text[at.end() :]
