"""The JSON metadata of a ``.pimx`` file <-> :class:`Program` parts, with every type and size checked.

Nothing here trusts its input: unknown and repeated keys, wrong types, numbers outside their range and deep
nesting are :class:`IsaError`.  What the parts mean together (pieces inside their port, streams that exist)
is ``validate``'s work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import NamedTuple, NoReturn

import numpy as np

from pimc.diagnostics import IsaError
from pimc.isa.model import check_model
from pimc.isa.program import (
    DTYPE_BYTES,
    AbsentImages,
    CacheRegion,
    Entry,
    Json,
    Locations,
    Port,
    PortPiece,
    Program,
)
from pimc.limits import AGENTS, ELEMENTS, HEADER_VALUES, MODEL_BYTES, PORTS, RANK, ROWS

VERSION = (1, 0)
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
PORT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}\Z")
TARGET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}\Z")
DIGEST = re.compile(r"[A-Za-z0-9:_.+-]{0,200}\Z")
#: A JSON string, or one that does not end: no place is looked at twice.
_STRING = re.compile(r'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
INT32 = np.iinfo(np.int32)
_LONGEST_INTEGER = 20  # digits of 64 bits
#: The figures of a cache in a file and in assembly text, and the least value of each.
CACHE_FIGURES: Mapping[str, int] = MappingProxyType(
    {"base": 0, "layers": 1, "layer_stride": 0, "slots": 1, "slot_bytes": 1, "cores": 1}
)
#: The figures of absent images in a file and in assembly text, and the greatest value of each; the least is 1.
ABSENT_FIGURES: Mapping[str, int] = MappingProxyType({"channels": int(AGENTS), "rows": int(ROWS)})


class MetadataParts(NamedTuple):
    """What the key ``pimx`` holds."""

    target_name: str
    target_digest: str
    rows: int
    entries: dict[str, Entry]
    caches: tuple[CacheRegion, ...]
    absent_images: AbsentImages | None


def _refuse(where: str, message: str) -> NoReturn:
    raise IsaError(message, where=where, hint="the file is damaged, or not written by pimc")


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _int(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _values(text: str) -> int:
    """About how many values a JSON text has; counted before they take memory, a hundred times that of their text."""
    marks = sum(map(text.count, ",[{"))
    return sum(map(_STRING.sub("", text).count, ",[{")) if marks > HEADER_VALUES else marks


def parse_json(text: str, where: str) -> Json:
    """Strict JSON of at most ``HEADER_VALUES`` values: no repeated keys, NaN, lone surrogates or absurd nesting; raises
    :class:`IsaError`.
    """
    if _values(text) > HEADER_VALUES:
        _refuse(where, f"more than {HEADER_VALUES.text}")
    try:
        value: Json = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_int)
    except (ValueError, RecursionError) as error:
        _refuse(where, f"not valid JSON ({error})")
    return value


def dump_json(value: Json) -> str:
    """The one text of a JSON value: sorted keys, no spaces; raises ``ValueError`` for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_object(value: Json, where: str, keys: Sequence[str]) -> Mapping[str, Json]:
    """``value`` as an object of exactly these keys."""
    if not isinstance(value, dict):
        _refuse(where, "must be an object")
    if set(value) != set(keys):
        wrong = sorted(set(value) ^ set(keys))
        _refuse(where, f"must have exactly the keys {', '.join(keys)} (wrong: {', '.join(wrong)[:200]})")
    return value


def _list(value: Json, where: str, longest: int) -> Sequence[Json]:
    if not isinstance(value, list) or len(value) > longest:
        _refuse(where, f"must be a list of at most {longest} elements")
    return value


def json_int(value: Json, where: str, low: int, high: int) -> int:
    """``value`` as an integer in [low, high]."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _refuse(where, f"must be an integer in [{low}, {high}]")
    return value


def _text(value: Json, where: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.match(value):
        _refuse(where, f"must be a string that matches {pattern.pattern[:-2]}")
    return value


def _number_key(text: str, where: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,4}", text) or int(text) >= AGENTS:
        _refuse(where, f"{text[:40]!r} is not a number below {AGENTS}")
    return int(text)


def _streams(value: Json, where: str) -> dict[int, str]:
    if not isinstance(value, dict):
        _refuse(where, "must be an object")
    result: dict[int, str] = {}
    for key in sorted(value, key=lambda key: (len(key), key)):
        tensor = value[key]
        if not isinstance(tensor, str):
            _refuse(f"{where}.{key[:40]}", "must be a string")
        result[_number_key(key, where)] = tensor
    return result


def _port(value: Json, where: str) -> Port:
    keys = ("name", "dtype", "shape", "pieces")
    fields = json_object(value, where, (*keys, "range") if isinstance(value, dict) and "range" in value else keys)
    name = _text(fields["name"], f"{where}.name", PORT_NAME)
    where = f"{where} ({name})"
    dtype = fields["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        _refuse(f"{where}.dtype", f"must be one of {', '.join(DTYPE_BYTES)}")
    shape = tuple(
        json_int(size, f"{where}.shape", 0, ELEMENTS) for size in _list(fields["shape"], f"{where}.shape", RANK)
    )
    pieces = []
    for i, piece in enumerate(_list(fields["pieces"], f"{where}.pieces", 1 << 20)):
        here = f"{where}.pieces[{i}]"
        numbers = json_object(piece, here, ("core", "address", "offset", "count"))
        pieces.append(
            PortPiece(
                json_int(numbers["core"], f"{here}.core", 0, AGENTS - 1),
                json_int(numbers["address"], f"{here}.address", 0, ELEMENTS),
                json_int(numbers["offset"], f"{here}.offset", 0, ELEMENTS),
                json_int(numbers["count"], f"{here}.count", 1, ELEMENTS),
            )
        )
    return Port(
        name, dtype, shape, tuple(pieces), _range(fields["range"], f"{where}.range") if "range" in fields else None
    )


def _range(value: Json, where: str) -> tuple[int, int]:
    numbers = [json_int(number, where, INT32.min, INT32.max) for number in _list(value, where, 2)]
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        _refuse(where, "must be the least and the greatest value")
    return numbers[0], numbers[1]


def _entry(value: Json, where: str) -> Entry:
    fields = json_object(value, where, ("cores", "groups", "inputs", "outputs"))
    inputs, outputs = (
        tuple(
            _port(port, f"{where}.{side}[{i}]") for i, port in enumerate(_list(fields[side], f"{where}.{side}", PORTS))
        )
        for side in ("inputs", "outputs")
    )
    return Entry(
        _streams(fields["cores"], f"{where}.cores"),
        _streams(fields["groups"], f"{where}.groups"),
        inputs,
        outputs,
    )


def parse_pimx(text: str, where: str) -> MetadataParts:
    """The metadata key ``pimx``; raises :class:`IsaError` naming the JSON path that is wrong."""
    where = f"{where}: metadata pimx"
    value = parse_json(text, where)
    if isinstance(value, dict) and value.get("version") != list(VERSION):
        raise IsaError(
            f"file format version {str(value.get('version'))[:40]} is not {list(VERSION)}",
            where=where,
            hint="compile the model again with this version of pimc",
        )
    optional = [key for key in ("caches", "absent_images") if isinstance(value, dict) and key in value]
    fields = json_object(value, where, ("version", "target", "rows", "entries", *optional))
    target = json_object(fields["target"], f"{where}.target", ("name", "digest"))
    entries = fields["entries"]
    if not isinstance(entries, dict):
        _refuse(f"{where}.entries", "must be an object")
    return MetadataParts(
        _text(target["name"], f"{where}.target.name", TARGET_NAME),
        _text(target["digest"], f"{where}.target.digest", DIGEST),
        json_int(fields["rows"], f"{where}.rows", 0, ROWS),
        {
            _text(name, f"{where}.entries", IDENTIFIER): _entry(entries[name], f"{where}.entries.{name}")
            for name in sorted(entries)
        },
        tuple(
            _cache(item, f"{where}.caches[{i}]")
            for i, item in enumerate(_list(fields.get("caches", []), f"{where}.caches", 1 << 12))
        ),
        _absent(fields["absent_images"], f"{where}.absent_images") if "absent_images" in fields else None,
    )


def _absent(value: Json, where: str) -> AbsentImages:
    given = json_object(value, where, tuple(ABSENT_FIGURES))
    figures = {key: json_int(given[key], f"{where}.{key}", 1, most) for key, most in ABSENT_FIGURES.items()}
    return AbsentImages(**figures)


def _cache(value: Json, where: str) -> CacheRegion:
    fields = json_object(value, where, ("name", *CACHE_FIGURES))
    figures = {key: json_int(fields[key], f"{where}.{key}", low, ELEMENTS) for key, low in CACHE_FIGURES.items()}
    return CacheRegion(_text(fields["name"], f"{where}.name", PORT_NAME), **figures)


def parse_debug(text: str, where: str) -> dict[str, Locations]:
    """The metadata key ``debug``."""
    where = f"{where}: metadata debug"
    locations = json_object(parse_json(text, where), where, ("locations",))["locations"]
    if not isinstance(locations, dict):
        _refuse(where, "locations must be an object")
    result: dict[str, Locations] = {}
    for tensor in sorted(locations):
        here = f"{where}.{tensor[:80]}"
        fields = json_object(locations[tensor], here, ("table", "index"))
        table: list[str] = []
        for text_ in _list(fields["table"], f"{here}.table", 1 << 24):
            if not isinstance(text_, str):
                _refuse(f"{here}.table", "must hold strings")
            table.append(text_)
        index = [json_int(i, f"{here}.index", -1, len(table) - 1) for i in _list(fields["index"], here, 1 << 24)]
        result[tensor] = Locations(tuple(table), np.array(index, np.int32))
    return result


def parse_model(text: str, where: str) -> Mapping[str, Json]:
    """The metadata key ``model``."""
    where = f"{where}: metadata model"
    if len(text) > MODEL_BYTES:
        _refuse(where, f"has more than {MODEL_BYTES.text}")
    return check_model(parse_json(text, where), where)


def _port_json(port: Port) -> Json:
    pieces = [
        {"core": piece.core, "address": piece.address, "offset": piece.offset, "count": piece.count}
        for piece in port.pieces
    ]
    result: dict[str, Json] = {"name": port.name, "dtype": port.dtype, "shape": list(port.shape), "pieces": pieces}
    return result if port.range is None else {**result, "range": list(port.range)}


def _entry_json(entry: Entry) -> Json:
    return {
        "cores": {str(number): tensor for number, tensor in entry.cores.items()},
        "groups": {str(number): tensor for number, tensor in entry.groups.items()},
        "inputs": [_port_json(port) for port in entry.inputs],
        "outputs": [_port_json(port) for port in entry.outputs],
    }


def dump_metadata(program: Program) -> dict[str, str]:
    """The safetensors ``__metadata__`` of a program."""
    pimx: Json = {
        "version": list(VERSION),
        "target": {"name": program.target_name, "digest": program.target_digest},
        "rows": program.rows,
        "entries": {name: _entry_json(entry) for name, entry in program.entries.items()},
        **({"caches": [asdict(cache) for cache in program.caches]} if program.caches else {}),
        **({"absent_images": asdict(program.absent_images)} if program.absent_images is not None else {}),
    }
    result = {"pimx": dump_json(pimx)}
    if program.locations:
        locations: Json = {
            tensor: {"table": list(value.table), "index": value.index.tolist()}
            for tensor, value in program.locations.items()
        }
        result["debug"] = dump_json({"locations": locations})
    if program.model is not None:
        result["model"] = dump_json(program.model)
    if program.tokenizer is not None:
        result["tokenizer"] = program.tokenizer
    return result
