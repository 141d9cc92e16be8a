"""Memory images that are made when they are asked for: in memory, or straight into the file of a binary.

An image is the fp16 bits of the first rows of every bank of a pseudo-channel, uint16[rows, banks, lanes].  All images
of a large model together have its size, so that nothing but the file should ever hold them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Halves: TypeAlias = NDArray[np.uint16]
Shape: TypeAlias = tuple[int, ...]


class ImageSink(Protocol):
    """Where images go, rows at a time; what is not written is zeros."""

    def write(self, channel: int, row: int, values: Halves) -> None:
        """Put ``values``, [rows, banks, lanes], at ``row`` of a pseudo-channel."""

    def read(self, channel: int, row: int) -> Halves:
        """A row of all banks, [banks, lanes], as it is so far."""


class ArraySink:
    """Images as arrays in memory."""

    def __init__(self, shapes: Mapping[int, Shape]) -> None:
        self.images = {channel: np.zeros(shape, np.uint16) for channel, shape in shapes.items()}

    def write(self, channel: int, row: int, values: Halves) -> None:
        """See :class:`ImageSink`."""
        self.images[channel][row : row + len(values)] = values

    def read(self, channel: int, row: int) -> Halves:
        """See :class:`ImageSink`."""
        found: Halves = self.images[channel][row]
        return found


class FileSink:
    """Images in an open file, each from its byte offset on.

    Plain reads and writes: pages of a mapped file would count as this process's memory.
    """

    def __init__(self, file: BinaryIO, offsets: Mapping[int, int], shapes: Mapping[int, Shape]) -> None:
        """``offsets``: where the image of each pseudo-channel begins; the file is made long enough for all."""
        self._file, self._offsets, self._shapes = file.fileno(), offsets, shapes
        file.flush()
        os.ftruncate(self._file, max(offsets[channel] + image_bytes(shapes[channel]) for channel in shapes))

    def write(self, channel: int, row: int, values: Halves) -> None:
        """See :class:`ImageSink`."""
        data = np.ascontiguousarray(values, "<u2").reshape(-1).view(np.uint8).data
        at = self._at(channel, row)
        while data:
            count = os.pwrite(self._file, data, at)
            data, at = data[count:], at + count

    def read(self, channel: int, row: int) -> Halves:
        """See :class:`ImageSink`."""
        _, banks, lanes = self._shapes[channel]
        data = os.pread(self._file, 2 * banks * lanes, self._at(channel, row))
        return np.frombuffer(data, "<u2").reshape(banks, lanes)

    def _at(self, channel: int, row: int) -> int:
        _, banks, lanes = self._shapes[channel]
        return self._offsets[channel] + 2 * row * banks * lanes


class DeferredImages(Mapping[int, Halves]):
    """Images by pseudo-channel, of known shapes; ``fill`` writes all into a sink.  To look at one makes all, once."""

    def __init__(self, shapes: Mapping[int, Shape], fill: Callable[[ImageSink], None]) -> None:
        self.shapes = shapes
        self.fill = fill

    @cached_property
    def _made(self) -> Mapping[int, Halves]:
        sink = ArraySink(self.shapes)
        self.fill(sink)
        return sink.images

    def __getitem__(self, channel: int) -> Halves:
        return self._made[channel]

    def __iter__(self) -> Iterator[int]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def image_shapes(images: Mapping[int, Halves]) -> Mapping[int, Shape]:
    """The shape of each image, which makes none."""
    if isinstance(images, DeferredImages):
        return images.shapes
    return {channel: image.shape for channel, image in images.items()}


def image_bytes(shape: Shape) -> int:
    """Bytes of an image."""
    return 2 * int(np.prod(shape, dtype=np.int64))


def total_bytes(images: Mapping[int, Halves]) -> int:
    """Bytes of all images, which makes none."""
    return sum(map(image_bytes, image_shapes(images).values()))
