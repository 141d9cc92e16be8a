"""``--prefill-chunk auto``: the largest chunk whose activations fit the cores.

Every chunk reads all weights once, so that the largest one takes the least time a token.  What fits is known where
buffers have addresses; so the compiler tries, from the largest chunk down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

from pimc.diagnostics import DoesNotFitError

Chunk: TypeAlias = "int | Literal['auto']"
AUTO = "auto"
#: The largest chunk that is tried.
MOST = 512

ResultT = TypeVar("ResultT")


def largest_that_fits(compile_chunk: Callable[[int], ResultT], most: int) -> tuple[int, ResultT]:
    """The largest power of two of at most ``most`` prompt tokens that ``compile_chunk`` takes, and what it makes of it.

    Raises DoesNotFitError, that of a chunk of one token, where none fits.
    """
    power = max(most, 1).bit_length() - 1
    while True:
        try:
            return 1 << power, compile_chunk(1 << power)
        except DoesNotFitError:
            if power == 0:
                raise
            power -= 1
