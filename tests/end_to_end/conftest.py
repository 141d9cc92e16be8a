"""Small models, compiled once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hf_models import FAMILIES, build
from numpy.typing import NDArray

import pimc

CHUNK = 8
MAX_SEQ = 64


@dataclass(frozen=True)
class Case:
    """A PyTorch model, its folder, and what it was compiled to."""

    model: object
    folder: Path
    executable: pimc.Executable

    def decode(self, token: int, position: int) -> NDArray[np.float16]:
        """Run entry ``decode``; logits [vocab]."""
        inputs = {"tokens": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        return self._logits("decode", inputs)

    def prefill(self, piece: list[int], position: int) -> NDArray[np.float16]:
        """Run entry ``prefill`` on at most ``CHUNK`` tokens; logits of the last, [vocab]."""
        inputs = {
            "tokens": np.array([piece + [0] * (CHUNK - len(piece))], np.int32),
            "position": np.array([position], np.int32),
            "length": np.array([len(piece)], np.int32),
        }
        return self._logits("prefill", inputs)

    def _logits(self, entry: str, inputs: dict[str, NDArray[np.int32]]) -> NDArray[np.float16]:
        return np.asarray(self.executable.run(inputs, entry=entry).outputs["logits"], np.float16).reshape(-1)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The case of a family, by name."""
    cases: dict[str, Case] = {}

    def get(name: str) -> Case:
        if name not in cases:
            family = next(family for family in FAMILIES if family.name == name)
            folder = tmp_path_factory.mktemp(name)
            model = build(family, folder)
            cases[name] = Case(model, folder, pimc.compile(folder, max_seq=MAX_SEQ, prefill_chunk=CHUNK))
        return cases[name]

    return get
