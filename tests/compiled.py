"""What a test compilation leaves; the fixture ``compilation`` is in tests/program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Options of the compilation.
SIZES = ("--max-seq", "32", "--prefill-chunk", "4")


@dataclass(frozen=True)
class Compilation:
    """A model folder, its binary, the dumps in pipeline order, and what the command wrote to stderr."""

    folder: Path
    binary: Path
    dumps: tuple[Path, ...]
    messages: str

    @property
    def names(self) -> list[str]:
        """``input`` and the passes, as the dumps are named."""
        return [path.stem.partition("-")[2] for path in self.dumps]
