"""Small models, compiled once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hf_models import FAMILIES, build

import pimc

CHUNK = 8
MAX_SEQ = 64


@dataclass(frozen=True)
class Case:
    """A PyTorch model and what it was compiled to."""

    model: object
    executable: pimc.Executable


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The case of a family, by name."""
    cases: dict[str, Case] = {}

    def get(name: str) -> Case:
        if name not in cases:
            family = next(family for family in FAMILIES if family.name == name)
            folder = tmp_path_factory.mktemp(name)
            model = build(family, folder)
            cases[name] = Case(model, pimc.compile(folder, max_seq=MAX_SEQ, prefill_chunk=CHUNK))
        return cases[name]

    return get
