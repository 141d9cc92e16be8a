"""The .pimx container: same bytes every time, nothing lost, and nothing hostile gets through."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.samples import sample, with_core, words
from pimc.diagnostics import InputError, IsaError, TargetError
from pimc.isa.container import check_against_target, load_program, share_streams, strip, validate_program, write_program
from pimc.isa.hbm import HBM_ISA
from pimc.isa.metadata import parse_json
from pimc.isa.program import Entry, Port, PortPiece, Program
from pimc.isa.sram import SRAM_ISA
from pimc.limits import HEADER_VALUES
from pimc.targets import load_target


def _bytes(program: Program, path: Path) -> bytes:
    write_program(path, program)
    return path.read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _bytes(sample(), tmp_path_factory.mktemp("good") / "good.pimx")


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _join(header: object, body: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + body


def test_round_trip(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "x.pimx"
    path.write_bytes(good)
    loaded, original = load_program(path), sample()
    assert loaded.path == path
    assert loaded.entries == original.entries
    assert loaded.model == original.model
    assert loaded.tokenizer == original.tokenizer
    assert all((loaded.code[name] == value).all() for name, value in original.code.items())
    assert all((loaded.images[pch] == value).all() for pch, value in original.images.items())
    assert isinstance(loaded.images[0].base, np.ndarray)
    assert set(loaded.decoded) == set(original.code)
    assert loaded.locations["code/decode/core/0"].at(4) == 'model.py:3 "q"'
    assert loaded.locations["code/decode/core/0"].at(0) is None
    assert _bytes(loaded, tmp_path / "y.pimx") == good
    with pytest.raises(ValueError, match="read-only"):
        loaded.images[0][0, 0, 0] = 1
    assert len(safetensors.numpy.load(good)) == len(original.code) + len(original.images)


def test_order_of_dictionaries_does_not_matter(tmp_path: Path, good: bytes) -> None:
    program = sample()
    shuffled = replace(
        program,
        entries=dict(sorted(program.entries.items(), reverse=True)),
        code={name: program.code[name] for name in sorted(program.code, reverse=True)},
        images={pch: program.images[pch] for pch in sorted(program.images, reverse=True)},
    )
    assert _bytes(shuffled, tmp_path / "x.pimx") == good


def test_strip() -> None:
    bare = strip(sample())
    assert (bare.locations, bare.model, bare.tokenizer) == ({}, None, None)
    assert strip(sample(), keep=("model",)).model is not None
    assert strip(sample(), keep=("debug", "tokenizer")).locations
    with pytest.raises(ValueError, match="cannot keep"):
        strip(sample(), keep=("code",))


def test_share_streams() -> None:
    halt = words(SRAM_ISA, ("halt",))
    other = words(SRAM_ISA, ("nop",), ("halt",))
    code = {f"code/main/core/{i}": halt if i != 1 else other for i in range(3)}
    program = Program("hpim", "", 0, {"main": Entry({i: f"code/main/core/{i}" for i in range(3)}, {})}, code)
    shared = share_streams(program)
    assert set(shared.code) == {"code/main/core/0", "code/main/core/1"}
    assert shared.entries["main"].cores[2] == "code/main/core/0"
    validate_program(shared)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.pimx"
    with pytest.raises(IsaError, match="run off its end"):
        write_program(path, with_core(sample(), words(SRAM_ISA, ("nop",))))
    with pytest.raises(IsaError, match=r"target\.name: must be a string that matches"):
        write_program(path, replace(sample(), target_name="a/b"))
    with pytest.raises(IsaError, match="image 65536: numbers end at 65535"):
        write_program(path, replace(sample(), images={65536: sample().images[0]}))
    with pytest.raises(InputError):
        write_program(tmp_path / "none" / "x.pimx", sample())
    assert list(tmp_path.iterdir()) == []


def _change(good: bytes, path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    header, body = _split(good)
    change(header)
    path.write_bytes(_join(header, body))


def _pimx(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    def apply(header: dict[str, Any]) -> None:
        value = json.loads(header["__metadata__"]["pimx"])
        change(value)
        header["__metadata__"]["pimx"] = json.dumps(value)

    return apply


CORE = "code/decode/core/0"
CACHE = {"name": "k", "base": 0, "layers": 1, "layer_stride": 0, "slots": 2, "slot_bytes": 32, "cores": 1}
PORT: Callable[[dict[str, Any]], dict[str, Any]] = lambda v: v["entries"]["decode"]["inputs"][0]  # noqa: E731


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("__metadata__"), "no metadata"),
        (lambda h: h["__metadata__"].pop("pimx"), "no metadata pimx"),
        (lambda h: h["__metadata__"].update(pimx="{"), "not valid JSON"),
        (lambda h: h["__metadata__"].update(pimx='{"version":[1,0],"version":[1,0]}'), "a key appears twice"),
        (lambda h: h["__metadata__"].update(pimx="NaN"), "NaN is not JSON"),
        (lambda h: h["__metadata__"].update(pimx="[" * 100000), "not valid JSON"),
        (lambda h: h["__metadata__"].update(pimx="[]"), "must be an object"),
        (lambda h: h["__metadata__"].update(pickle="x"), "unknown metadata 'pickle'"),
        (lambda h: h["__metadata__"].update(model="3"), "must be an object"),
        (lambda h: h["__metadata__"].update(debug="{}"), "exactly the keys locations"),
        (
            lambda h: h["__metadata__"].update(debug='{"locations":{"x":{"table":[],"index":[]}}}'),
            "which is no stream",
        ),
        (
            lambda h: h["__metadata__"].update(debug=json.dumps({"locations": {CORE: {"table": [], "index": [0]}}})),
            r"integer in \[-1, -1\]",
        ),
        (
            lambda h: h["__metadata__"].update(debug=json.dumps({"locations": {CORE: {"table": [], "index": [-1]}}})),
            "1 source locations for 41 words",
        ),
        (lambda h: h.pop(CORE), "starts at"),
        (lambda h: h.update({"x": h.pop(CORE)}), "unknown tensor 'x'"),
        (lambda h: h.update({"code/../core/0": h.pop(CORE)}), "unknown tensor"),
        (lambda h: h.update({"image/../../etc": h.pop("image/0")}), "unknown tensor"),
        (lambda h: h.update({"image/99999": h.pop("image/0")}), "numbers end at"),
        (lambda h: h.update({"code/decode/core/7": h.pop(CORE)}), "has no tensor"),
        (lambda h: h[CORE].update(dtype="F32"), "dtype must be one of"),
        (lambda h: h[CORE].update(dtype="U64"), "contradict each other"),
        (lambda h: h[CORE].update(dtype="U16", shape=[82]), "must be U32 of rank 1"),
        (lambda h: h[CORE].update(shape=[1, 41]), "must be U32 of rank 1"),
        (lambda h: h[CORE].update(shape=[1 << 39]), "contradict each other"),
        (lambda h: h[CORE].update(shape=[1 << 62]), r"must be an integer in \[0,"),
        (lambda h: h[CORE].update(shape=[-1]), r"must be an integer in \[0,"),
        (lambda h: h[CORE].update(shape=[True]), r"must be an integer in \[0,"),
        (lambda h: h[CORE].update(shape=41), "malformed"),
        (lambda h: h[CORE].update(data_offsets=h["code/decode/core/1"]["data_offsets"]), "starts at"),
        (lambda h: h[CORE].update(extra=1), "exactly the keys"),
        (lambda h: h.update({CORE: None}), "must be an object"),
        (_pimx(lambda v: v.update(version=[2, 0])), r"format version \[2, 0\]"),
        (_pimx(lambda v: v.update(extra=0)), "wrong: extra"),
        (_pimx(lambda v: v.update(rows=1)), "image 0 has 2 of 1 rows"),
        (_pimx(lambda v: v.update(rows="2")), "rows: must be an integer"),
        (_pimx(lambda v: v["target"].update(name="../x")), "must be a string that matches"),
        (_pimx(lambda v: v["entries"].update({"a/b": v["entries"]["decode"]})), "must be a string that matches"),
        (_pimx(lambda v: v["entries"]["decode"]["cores"].update({"01": CORE})), "is not a number below"),
        (_pimx(lambda v: v["entries"]["decode"]["cores"].update({"9": "code/decode/hbm/0"})), "cannot run"),
        (_pimx(lambda v: v["entries"]["decode"]["cores"].update({"9": "code/decode/core/9"})), "has no tensor"),
        (_pimx(lambda v: v["entries"].pop("prefill")), "is not the stream of a core or group"),
        (_pimx(lambda v: PORT(v).update(dtype="f64")), "dtype: must be one of"),
        (_pimx(lambda v: PORT(v).update(shape=[-1])), r"must be an integer in \[0"),
        (_pimx(lambda v: PORT(v).update(shape=[1] * 9)), "at most 8"),
        (_pimx(lambda v: PORT(v).update(name="")), "must be a string that matches"),
        (_pimx(lambda v: v.update(caches=[{"name": "k"}])), "must have exactly the keys name, base"),
        (_pimx(lambda v: v.update(caches=[CACHE | {"layers": 0}])), "layers: must be an integer in"),
        (_pimx(lambda v: v.update(caches={})), "caches: must be a list"),
        (_pimx(lambda v: v.update(absent_images={"channels": 4})), "must have exactly the keys channels, rows"),
        (_pimx(lambda v: v.update(absent_images={"channels": 0, "rows": 1})), "channels: must be an integer in"),
        (_pimx(lambda v: v.update(absent_images={"channels": 4, "rows": 1})), "without weights has images"),
        (_pimx(lambda v: PORT(v).update(range=[0])), "least and the greatest value"),
        (_pimx(lambda v: PORT(v).update(range=[3, 2])), "least and the greatest value"),
        (_pimx(lambda v: PORT(v).update(range=[0, 1 << 31])), "range: must be an integer in"),
        (_pimx(lambda v: v["entries"]["decode"]["outputs"][0].update(range=[0, 1])), "a range belongs to an input"),
        (_pimx(lambda v: PORT(v)["pieces"][0].update(count=3)), "a piece ends behind its 2 elements"),
        (_pimx(lambda v: PORT(v)["pieces"][0].update(address=3)), "not a multiple"),
        (_pimx(lambda v: PORT(v)["pieces"][1].update(core=0)), "inputs overlap at address 0x40 of core 0"),
        (_pimx(lambda v: v["entries"]["decode"]["inputs"].append(PORT(v))), "same name"),
        (_pimx(lambda v: v["entries"]["decode"]["outputs"][0]["pieces"].pop()), "every element once"),
    ],
)
def test_hostile_headers(good: bytes, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    path = tmp_path / "bad.pimx"
    _change(good, path, change)
    with pytest.raises(IsaError, match=message) as caught:
        load_program(path)
    assert str(path) in str(caught.value)


def test_not_a_program(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "bad.pimx"
    with pytest.raises(InputError, match="cannot be read"):
        load_program(path)
    for data in (b"", b"\1", b"\xff" * 8, b"\xff" * 100, (4).to_bytes(8, "little") + b"\xff\xfe\0\0", good[:200]):
        path.write_bytes(data)
        with pytest.raises(InputError):
            load_program(path)
    for data in (good[:-1], good + b"\0"):
        path.write_bytes(data)
        with pytest.raises(IsaError, match="the file has"):
            load_program(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_bytes(good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any damage to header or code gives an error of ours or a valid program, never anything else."""
    image_bytes = 3 * 16 * 512 * 2
    position = data.draw(st.integers(0, len(good) - image_bytes - 1))
    damaged = bytearray(good)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "damaged.pimx"
    path.write_bytes(damaged)
    with contextlib.suppress(InputError):
        validate_program(load_program(path))


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (np.array([0xFFFFFFFF], np.uint32), r"word 0 \(0xffffffff\) is not an instruction"),
        (words(SRAM_ISA, ("beq", 0, 0, 2), ("halt",)), "branches to 2, outside"),
        (words(SRAM_ISA, ("beq", 0, 0, -1), ("halt",)), "branches to -1, outside"),
        (words(SRAM_ISA, ("halt",), ("beq", 0, 1, -1)), "run off its end"),
        (words(SRAM_ISA), "run off its end"),
    ],
)
def test_bad_core_streams(stream: np.ndarray, message: str) -> None:
    with pytest.raises(IsaError, match=message):
        validate_program(with_core(sample(), stream))


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (words(HBM_ISA, ("endl",), ("halt",)), "endl without a loop"),
        (words(HBM_ISA, ("loop", 0, 1), ("halt",)), "1 loops have no endl"),
        (words(HBM_ISA, *[("loop", 0, 1)] * 9, *[("endl",)] * 9, ("halt",)), "more than 8 deep"),
        (words(HBM_ISA, ("nop",)), "run off its end"),
    ],
)
def test_bad_command_streams(stream: np.ndarray, message: str) -> None:
    program = sample()
    with pytest.raises(IsaError, match=message):
        validate_program(replace(program, code={**program.code, "code/decode/hbm/0": stream}))


def _one(
    kind: str,
    number: int,
    stream: np.ndarray,
    rows: int = 0,
    images: dict[int, np.ndarray] | None = None,
    outputs: tuple[Port, ...] = (),
) -> Program:
    tensor = f"code/main/{kind}/{number}"
    cores, groups = ({number: tensor}, {}) if kind == "core" else ({}, {number: tensor})
    return Program("hpim", "", rows, {"main": Entry(cores, groups, (), outputs)}, {tensor: stream}, images or {})


HALT = words(SRAM_ISA, ("halt",))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (_one("core", 32, HALT), "the target has 32 cores"),
        (_one("hbm", 32, words(HBM_ISA, ("halt",))), "the target has 32 cores"),
        (_one("core", 0, np.repeat(HALT, 16385)), "the instruction memory has 65536"),
        (_one("core", 0, HALT, rows=49153), "49153 rows a bank"),
        (_one("core", 0, HALT, rows=1, images={128: np.zeros((1, 16, 512), np.uint16)}), "128 pseudo-channels"),
        (_one("core", 0, HALT, rows=1, images={0: np.zeros((1, 8, 512), np.uint16)}), "banks x lanes"),
        (_one("core", 0, HALT, outputs=(Port("y", "f32", (1,), (PortPiece(0, 425984, 0, 1),)),)), "local memory at"),
        (_one("core", 0, HALT, outputs=(Port("y", "f32", (1,), (PortPiece(40, 0, 0, 1),)),)), "32 cores"),
        (_one("hbm", 0, words(HBM_ISA, ("mac", 15, 31, 0, 2, 0, 0, 0), ("halt",))), r"mac: column \+ count exceeds"),
        (_one("hbm", 0, words(HBM_ISA, ("mac", 15, 0, 0, 1, 32, 0, 0), ("halt",))), "mac: result exceeds"),
        (_one("hbm", 0, words(HBM_ISA, ("rdres", 15, 0, 0, 31, 2), ("halt",))), r"rdres: result \+ count exceeds"),
    ],
)
def test_too_large_for_the_target(program: Program, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        check_against_target(validate_program(program), load_target("hpim"))


def test_fits_the_target() -> None:
    command = words(HBM_ISA, ("mac", 15, 0, 0, 32, 31, 1, 0), ("rdres", 15, 0, 0, 0, 32), ("halt",))
    check_against_target(validate_program(_one("hbm", 31, command)), load_target("hpim"))


@pytest.mark.parametrize("many", ["[[" + "[]," * HEADER_VALUES + "0]]", "[" + "0," * HEADER_VALUES + "0]"])
def test_a_header_of_very_many_values_is_refused_before_it_is_read(many: str, tmp_path: Path) -> None:
    """A list of no elements takes 3 bytes in a file and 64 in memory."""
    header = ('{"__metadata__":{},"x":' + many + "}").encode()
    (tmp_path / "x.pimx").write_bytes(len(header).to_bytes(8, "little") + header)
    tracemalloc.start()
    with pytest.raises(IsaError, match="more than 1048576 values"):
        load_program(tmp_path / "x.pimx")
    assert tracemalloc.get_traced_memory()[1] < 8 * len(header)
    tracemalloc.stop()


@pytest.mark.parametrize("text", [",[{" * HEADER_VALUES, '\\"[,' * HEADER_VALUES])
def test_what_stands_in_strings_is_no_value(text: str) -> None:
    assert parse_json(json.dumps({"a": text}), "x") == {"a": text}
