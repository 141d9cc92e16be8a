"""Reading and writing ``.pimx`` files (safetensors; docs/binary.md).

A file is untrusted: every size, offset, type, name and word is checked before a program comes out of
:func:`load_program`.  Code is copied and decoded; images stay in the mapped file and are read when used
(they are plain numbers, any value of which is harmless).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pimc.atomic import atomic_path
from pimc.diagnostics import InputError, IsaError
from pimc.files import reason, regular_file
from pimc.isa.codec import Words
from pimc.isa.images import DeferredImages, FileSink, image_shapes
from pimc.isa.metadata import (
    IDENTIFIER,
    dump_json,
    dump_metadata,
    json_int,
    json_object,
    parse_debug,
    parse_json,
    parse_model,
    parse_pimx,
)
from pimc.isa.program import Json, LoadedProgram, Program, share_streams, strip
from pimc.isa.validate import check_against_target, validate_program
from pimc.limits import AGENTS, ELEMENTS, HEADER_BYTES, TOKENIZER_BYTES

_DTYPES: Mapping[str, np.dtype[np.unsignedinteger]] = {
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
}
_CODE = re.compile(rf"code/({IDENTIFIER.pattern[:-2]})/(core|hbm)/(0|[1-9][0-9]{{0,4}})\Z")
_IMAGE = re.compile(r"image/(0|[1-9][0-9]{0,4})\Z")
_IMAGES = "image/"
_METADATA = ("pimx", "debug", "model", "tokenizer")


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file: where its bytes are, counted from the end of the header."""

    dtype: np.dtype[np.unsignedinteger]
    shape: tuple[int, ...]
    begin: int
    end: int


def _tensor_order(item: tuple[str, np.dtype[np.unsignedinteger]]) -> tuple[int, list[tuple[int, str]]]:
    """Widest elements first, so that all are aligned; then by name, its numbers by value."""
    name, dtype = item
    return -dtype.itemsize, [(int(part), "") if part.isdigit() else (-1, part) for part in name.split("/")]


def write_program(path: str | Path, program: Program) -> None:
    """Write a program atomically; the same program gives the same bytes.

    Raises :class:`IsaError` where the program is not valid, :class:`InputError` where the file cannot be
    written.
    """
    validate_program(program, str(path))
    header, tensors = _header(program, str(path))
    start = 8 + len(header)
    deferred = program.images if isinstance(program.images, DeferredImages) else None
    with atomic_path(path) as temporary, temporary.open("x+b") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in tensors:
            if deferred is None or not name.startswith(_IMAGES):  # these are last
                _write_array(file, _array(program, name))
        if deferred:
            offsets = {channel: start + tensors[f"{_IMAGES}{channel}"].begin for channel in deferred}
            deferred.fill(FileSink(file, offsets, deferred.shapes))


def _write_array(file: BinaryIO, array: NDArray[np.unsignedinteger]) -> None:
    # Not tofile(), whose errors do not say why.
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _array(program: Program, name: str) -> NDArray[np.unsignedinteger]:
    if name.startswith(_IMAGES):
        return program.images[int(name.removeprefix(_IMAGES))]
    return program.code[name]


def _header(program: Program, where: str) -> tuple[bytes, dict[str, _Tensor]]:
    """The padded header, and the tensors in file order."""
    kinds = {name: (words.dtype, words.shape) for name, words in program.code.items()}
    kinds |= {f"{_IMAGES}{pch}": (np.dtype(np.uint16), shape) for pch, shape in image_shapes(program.images).items()}
    order = [name for name, _ in sorted(((name, dtype) for name, (dtype, _) in kinds.items()), key=_tensor_order)]
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    metadata = dump_metadata(program)
    _parse_metadata(metadata, where)  # what is written must be readable
    header: dict[str, Json] = {"__metadata__": dict(metadata)}
    begin = 0
    tensors: dict[str, _Tensor] = {}
    for name in order:
        dtype, shape = kinds[name]
        end = begin + prod(shape) * dtype.itemsize
        tensors[name] = _Tensor(dtype, shape, begin, end)
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    try:
        text = dump_json(header).encode()
    except UnicodeEncodeError as error:
        raise IsaError("metadata holds text that is not Unicode (a lone surrogate)") from error
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_BYTES:
        raise IsaError(f"the metadata takes {len(text)} bytes, more than {HEADER_BYTES}", hint="strip debug data")
    return text, tensors


def load_program(path: str | Path) -> LoadedProgram:
    """Map a ``.pimx`` file and check everything that does not depend on a target.

    Raises :class:`InputError` where the file cannot be read, :class:`IsaError` where anything in it is wrong.
    """
    where = str(path)
    try:
        data = np.memmap(regular_file(path), np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        why = reason(error) if isinstance(error, OSError) else "the file is empty"
        raise InputError(f"cannot be read: {why}", where=where) from error
    tensors, metadata, start = _read_header(data, where)
    program = _assemble(data[start:], tensors, metadata, where)
    return replace(validate_program(program, where), path=Path(path))


def _read_header(data: NDArray[np.uint8], where: str) -> tuple[dict[str, _Tensor], dict[str, str], int]:
    """The tensors, the metadata and where the data start."""
    size = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or size > min(HEADER_BYTES, len(data) - 8):
        raise IsaError("not a .pimx file, or cut short (header size)", where=where)
    raw = data[8 : 8 + size].tobytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise IsaError("not a .pimx file (the header is not UTF-8)", where=where) from error
    header = parse_json(text, f"{where}: header")
    if not isinstance(header, dict) or "__metadata__" not in header:
        raise IsaError("not a .pimx file (no metadata)", where=where)
    metadata = header["__metadata__"]
    if not isinstance(metadata, dict) or "pimx" not in metadata:
        raise IsaError("not a .pimx file (no metadata pimx)", where=where)
    texts: dict[str, str] = {}
    for key, value in metadata.items():
        if key not in _METADATA or not isinstance(value, str):
            raise IsaError(f"unknown metadata {key[:40]!r}", where=where)
        texts[key] = value
    tensors = {name: _tensor(header[name], f"{where}: {name[:80]!r}") for name in header if name != "__metadata__"}
    _check_offsets(tensors, len(data) - 8 - size, where)
    return tensors, texts, 8 + size


def _tensor(value: Json, where: str) -> _Tensor:
    fields = json_object(value, where, ("dtype", "shape", "data_offsets"))
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise IsaError(f"dtype must be one of {', '.join(_DTYPES)}", where=where)
    if not isinstance(shape, list) or len(shape) > 3 or not isinstance(offsets, list) or len(offsets) != 2:
        raise IsaError("shape or data_offsets are malformed", where=where)
    sizes = tuple(json_int(size, f"{where}: shape", 0, ELEMENTS) for size in shape)
    begin, end = (json_int(offset, f"{where}: data_offsets", 0, 1 << 62) for offset in offsets)
    if end - begin != prod(sizes) * _DTYPES[dtype].itemsize:
        raise IsaError("shape and data_offsets contradict each other", where=where)
    return _Tensor(_DTYPES[dtype], sizes, begin, end)


def _check_offsets(tensors: Mapping[str, _Tensor], size: int, where: str) -> None:
    """The tensors fill the data exactly: no holes, no overlaps, aligned."""
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            raise IsaError(f"{name[:80]!r} starts at {tensor.begin}, not at {position}", where=where)
        if position % tensor.dtype.itemsize:
            raise IsaError(f"{name[:80]!r} is not aligned", where=where)
        position = tensor.end
    if position != size:
        raise IsaError(f"the tensors take {position} bytes, the file has {size} for them", where=where)


def _assemble(
    data: NDArray[np.uint8], tensors: Mapping[str, _Tensor], metadata: Mapping[str, str], where: str
) -> Program:
    view = partial(_view, data)
    code: dict[str, Words] = {}
    images: dict[int, NDArray[np.uint16]] = {}
    for name, tensor in sorted(tensors.items()):
        is_code, is_image = _CODE.match(name), _IMAGE.match(name)
        expected = ("U32" if is_code[2] == "core" else "U64") if is_code else "U16"
        if not is_code and not is_image:
            raise IsaError(f"unknown tensor {name[:120]!r}", where=where)
        if tensor.dtype != _DTYPES[expected] or len(tensor.shape) != (1 if is_code else 3):
            raise IsaError(f"{name}: must be {expected} of rank {1 if is_code else 3}", where=where)
        number = int(name.rsplit("/", 1)[1])
        if number >= AGENTS:
            raise IsaError(f"{name}: numbers end at {AGENTS - 1}", where=where)
        if is_code:
            code[name] = view(tensor).copy()
            code[name].flags.writeable = False
        else:
            images[number] = view(tensor)
    return replace(_parse_metadata(metadata, where), code=code, images=dict(sorted(images.items())))


def _parse_metadata(metadata: Mapping[str, str], where: str) -> Program:
    """The program without code and images."""
    if len(metadata.get("tokenizer", "").encode(errors="surrogatepass")) > TOKENIZER_BYTES:
        raise IsaError(f"the tokenizer has more than {TOKENIZER_BYTES.text}", where=where)
    parts = parse_pimx(metadata["pimx"], where)
    return Program(
        **parts._asdict(),
        code={},
        locations=parse_debug(metadata["debug"], where) if "debug" in metadata else {},
        model=parse_model(metadata["model"], where) if "model" in metadata else None,
        tokenizer=metadata.get("tokenizer"),
    )


def _view(data: NDArray[np.uint8], tensor: _Tensor) -> NDArray[np.unsignedinteger]:
    return data[tensor.begin : tensor.end].view(tensor.dtype).reshape(tensor.shape)


__all__ = [
    "LoadedProgram",
    "Program",
    "check_against_target",
    "load_program",
    "share_streams",
    "strip",
    "validate_program",
    "write_program",
]
