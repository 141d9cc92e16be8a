"""What is in a binary, for ``pimc info``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pimc.driver.report import entry_report, extent
from pimc.driver.target import OVERRIDES_KEY
from pimc.isa.images import total_bytes
from pimc.isa.program import Json, Program
from pimc.ports import PortInfo, describe


@dataclass(frozen=True)
class EntryInfo:
    """An entry point: its inputs and outputs, the code of a core and of a group of channels in words, and the sizes of
    its streams.
    """

    name: str
    inputs: tuple[PortInfo, ...]
    outputs: tuple[PortInfo, ...]
    cores: str
    controllers: str
    sizes: Mapping[str, object]


@dataclass(frozen=True)
class ProgramInfo:
    """A binary: sizes in bytes, rows of a bank, what it was compiled for, and its entry points.

    ``shapes_only``: whether it has no weights, so that it can be timed only.  ``text``: whether it takes text, and with
    what; None for a program of arrays.  ``positions``: what its KV caches hold.
    """

    model: str | None
    target: str
    digest: str
    overrides: tuple[str, ...]
    file_bytes: int
    code_bytes: int
    image_bytes: int
    rows: int
    shapes_only: bool
    text: str | None
    positions: int | None
    entries: tuple[EntryInfo, ...]

    def to_json(self) -> dict[str, object]:
        """What ``pimc info --json`` prints."""
        return {
            "name": self.model,
            "target": self.target,
            "digest": self.digest,
            "overrides": list(self.overrides),
            "file_bytes": self.file_bytes,
            "code_bytes": self.code_bytes,
            "image_bytes": self.image_bytes,
            "rows_per_bank": self.rows,
            "shapes_only": self.shapes_only,
            "text": self.text,
            "cache_positions": self.positions,
            "entries": {
                entry.name: {
                    "inputs": [port.to_json() for port in entry.inputs],
                    "outputs": [port.to_json() for port in entry.outputs],
                    **entry.sizes,
                }
                for entry in self.entries
            },
        }


def info_of(program: Program, file_bytes: int) -> ProgramInfo:
    """What is in a program whose file has ``file_bytes``.

    Raises:
        InputError: its metadata do not describe its entry points.
    """
    model = program.model or {}
    name, overrides = model.get("name"), model.get(OVERRIDES_KEY)
    return ProgramInfo(
        model=name if isinstance(name, str) else None,
        target=program.target_name,
        digest=program.target_digest,
        overrides=tuple(str(item) for item in overrides) if isinstance(overrides, list) else (),
        file_bytes=file_bytes,
        code_bytes=sum(words.nbytes for words in program.code.values()),
        image_bytes=total_bytes(program.images),
        rows=program.rows,
        shapes_only=program.absent_images is not None,
        text=_text(program, model.get("max_seq"), model.get("chat_template")),
        positions=min((cache.positions for cache in program.caches), default=None),
        entries=tuple(_entry(program, entry) for entry in program.entries),
    )


def _text(program: Program, max_seq: Json, template: Json) -> str | None:
    if program.tokenizer is None:
        return None
    chat = "with a chat template" if template is not None else "without a chat template"
    return f"tokenizer of {len(program.tokenizer):,} characters, {chat}, sequences up to {max_seq} tokens"


def _entry(program: Program, name: str) -> EntryInfo:
    entry = program.entries[name]
    inputs, outputs = describe(program.model, name, entry)
    cores, groups = (extent(program, tensors) for tensors in (entry.cores, entry.groups))
    return EntryInfo(
        name, inputs, outputs, f"{cores} a core", f"{groups} a channel group", entry_report(program, entry)
    )
