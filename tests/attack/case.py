"""A case of the attack: files, and commands that are given them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CASE = "case.json"


@dataclass(frozen=True)
class Case:
    """Files by name, and command lines of ``pimc`` that are run one after the other in their folder."""

    kind: str
    files: dict[str, bytes]
    commands: list[list[str]]
    payload: bytes = field(default=b"", compare=False)
    """Of a guided kind: what later cases may be made from, if this one reaches something new."""

    def write(self, folder: Path) -> None:
        """Replace what ``folder`` holds by this case."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        text = json.dumps({"kind": self.kind, "commands": self.commands}, indent=1)
        (folder / CASE).write_text(text, encoding="utf-8")


def read_case(folder: Path) -> Case:
    """The case that was written to ``folder``."""
    value = json.loads((folder / CASE).read_text(encoding="utf-8"))
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != CASE and path.is_file()}
    return Case(value["kind"], files, value["commands"])


@dataclass(frozen=True)
class Kind:
    """A kind of input: what it starts from, how a case is made of that, and whether coverage guides it."""

    name: str
    seeds: Callable[[], list[bytes]]
    make: Callable[[random.Random, Sequence[bytes]], Case]
    guided: bool = False
    share: int = 1
    """How many cases of it come to one of the others."""
