"""Programs and runs in numbers, as JSON objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from pimc.isa.images import total_bytes
from pimc.isa.program import Entry, Program

if TYPE_CHECKING:
    from pimc.runtime_sim import RunResult


def program_report(program: Program) -> dict[str, object]:
    """Instruction counts and bytes of a program, by entry: of every core, and of every group of channels (the
    controllers of a group run one stream).
    """
    return {
        "target": program.target_name,
        "rows_per_bank": program.rows,
        "shapes_only": program.absent_images is not None,
        "image_bytes": total_bytes(program.images),
        "code_bytes": sum(words.nbytes for words in program.code.values()),
        "entries": {name: entry_report(program, entry) for name, entry in program.entries.items()},
    }


def entry_report(program: Program, entry: Entry) -> dict[str, object]:
    """The same of one entry."""
    return {"cores": _streams(program, entry.cores), "controllers": _streams(program, entry.groups)}


def _streams(program: Program, tensors: Mapping[int, str]) -> dict[str, object]:
    """Words of the streams by agent, and their extremes; ``instructions_each`` is in the order of the agents."""
    code = [program.code[tensors[agent]] for agent in sorted(tensors)]
    lengths, sizes = [len(words) for words in code], [words.nbytes for words in code]
    return {
        "streams": len(code),
        "min_instructions": min(lengths, default=0),
        "max_instructions": max(lengths, default=0),
        "min_bytes": min(sizes, default=0),
        "max_bytes": max(sizes, default=0),
        "instructions": sum(lengths),
        "bytes": sum(sizes),
        "instructions_each": lengths,
        "bytes_each": sizes,
    }


def program_lines(program: Program) -> Iterator[str]:
    """The same for a person: a line an entry, and one for the memory."""
    for name, entry in program.entries.items():
        core, group = (extent(program, tensors) for tensors in (entry.cores, entry.groups))
        yield f"@{name}: {core} a core, {group} a channel group"
    images = total_bytes(program.images)
    held = f"{images:,} bytes" if program.absent_images is None else "absent, for timing only"
    yield f"memory image: {held}; {program.rows} rows a bank"


def extent(program: Program, tensors: Mapping[int, str]) -> str:
    """Words and bytes of one stream, or from the shortest to the longest."""
    words = sorted({(len(code), code.nbytes) for code in (program.code[tensor] for tensor in tensors.values())})
    (least, small), (most, large) = words[0] if words else (0, 0), words[-1] if words else (0, 0)
    if least == most:
        return f"{most:,} instructions ({large:,} bytes)"
    return f"{least:,} to {most:,} instructions ({small:,} to {large:,} bytes)"


def run_report(result: RunResult, *, clock_ghz: float, wall_s: float) -> dict[str, object]:
    """What ``pimc run --json`` prints."""
    outputs = {
        name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in sorted(result.outputs.items())
    }
    return {
        "cycles": result.cycles,
        "clock_ghz": clock_ghz,
        "wall_s": round(wall_s, 3),
        "outputs": outputs,
        "overflows": [asdict(overflow) for overflow in result.overflows],
    }
