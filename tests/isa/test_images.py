"""Images that are made when they are asked for: the same in memory and in the file, and nothing left of a failure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isa.samples import sample
from pimc.diagnostics import InputError
from pimc.isa.container import load_program, validate_program, write_program
from pimc.isa.images import ArraySink, DeferredImages, FileSink, ImageSink, image_shapes, total_bytes

SHAPES = dict.fromkeys(range(4), (3, 16, 512))


def fill(sink: ImageSink) -> None:
    """Rows in any order, parts of a row over what is there, and rows that nothing writes."""
    random = np.random.default_rng(3)
    for channel in (2, 0, 3):
        sink.write(channel, 1, random.integers(0, 1 << 16, (2, 16, 512), np.uint16))
        row = np.array(sink.read(channel, 2))
        row[:, :7] = channel
        sink.write(channel, 2, row[None])
    sink.write(1, 0, np.ones((16, 3, 512), np.uint16)[:, 1][None])  # not contiguous


def test_file_and_memory_hold_the_same(tmp_path: Path) -> None:
    memory = ArraySink(SHAPES)
    fill(memory)
    offsets = {channel: 10 + 50_000 * channel for channel in SHAPES}
    with (tmp_path / "images").open("x+b") as file:
        file.write(b"0123456789")
        fill(FileSink(file, offsets, SHAPES))
    data = (tmp_path / "images").read_bytes()
    assert data.startswith(b"0123456789")
    for channel, offset in offsets.items():
        image = np.frombuffer(data, "<u2", 3 * 16 * 512, offset).reshape(3, 16, 512)
        np.testing.assert_array_equal(image, memory.images[channel])


def test_a_program_with_them_is_the_same_file(tmp_path: Path) -> None:
    eager = ArraySink(SHAPES)
    fill(eager)
    program = replace(sample(), rows=3, images=eager.images)
    write_program(tmp_path / "eager.pimx", program)
    deferred = DeferredImages(SHAPES, fill)
    write_program(tmp_path / "deferred.pimx", replace(program, images=deferred))
    assert (tmp_path / "deferred.pimx").read_bytes() == (tmp_path / "eager.pimx").read_bytes()
    assert "_made" not in vars(deferred)  # nobody has asked for the arrays
    loaded = load_program(tmp_path / "deferred.pimx")
    assert all((loaded.images[channel] == image).all() for channel, image in deferred.items())
    assert image_shapes(deferred) == image_shapes(loaded.images) == SHAPES
    assert total_bytes(deferred) == total_bytes(loaded.images) == 4 * 3 * 16 * 512 * 2


def test_they_are_validated_unmade() -> None:
    def never(sink: ImageSink) -> None:
        raise AssertionError

    deferred = DeferredImages(SHAPES, never)
    validate_program(replace(sample(), rows=3, images=deferred))
    with pytest.raises(InputError, match="image 0 has 3 of 2 rows"):
        validate_program(replace(sample(), rows=2, images=deferred))


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    def failing(sink: ImageSink) -> None:
        fill(sink)
        raise InputError("weight 'w' does not fit fp16")

    with pytest.raises(InputError, match="does not fit fp16"):
        write_program(tmp_path / "x.pimx", replace(sample(), rows=3, images=DeferredImages(SHAPES, failing)))
    assert list(tmp_path.iterdir()) == []
