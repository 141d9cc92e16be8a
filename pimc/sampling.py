"""Which token follows: the likeliest one, or one drawn by its probability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import UsageError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; without any figure, the likeliest one each time (greedy).

    ``temperature``: logits are divided by it before they become probabilities (0: greedy; 1 where another figure is
    given and it is not).  ``top_k``: only the k likeliest tokens.  ``top_p``: of these, the likeliest ones that have
    this probability together.  ``seed``: the same seed gives the same tokens.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raises: UsageError for a figure that makes no sense."""
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"temperature is {self.temperature}, which is not a number of at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}, which is not at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}, which is not above 0 and at most 1")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed is {self.seed}, which is not at least 0")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0 or self == Sampling()


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed or 0)

    def choose(self, logits: NDArray[np.generic]) -> int:
        """The number of the next token; the lowest one among equals.  ``logits``: one a token, of any shape."""
        flat = np.asarray(logits, np.float64).reshape(-1)
        best = int(np.argmax(flat))
        if self._sampling.greedy or not np.isfinite(flat[best]):
            return best
        order = np.argsort(-flat, kind="stable")[: self._sampling.top_k]
        scaled = (flat[order] - flat[best]) / (
            1.0 if self._sampling.temperature is None else self._sampling.temperature
        )
        odds = np.exp(scaled)
        total = np.cumsum(odds / odds.sum())
        if self._sampling.top_p is not None:
            kept = int(np.searchsorted(total, self._sampling.top_p)) + 1
            order, total = order[:kept], total[:kept]
        drawn = self._random.random() * total[-1]
        return int(order[min(int(np.searchsorted(total, drawn, side="right")), len(order) - 1)])
