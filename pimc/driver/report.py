"""Programs and runs in numbers, as JSON objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pimc.isa.program import Program

if TYPE_CHECKING:
    from pimc.runtime_sim import RunResult


def program_report(program: Program) -> dict[str, object]:
    """Instruction counts and bytes of a program: by entry, the longest and all streams of cores and controllers."""
    entries: dict[str, object] = {}
    for name, entry in program.entries.items():
        entries[name] = {
            "cores": _streams(program, list(entry.cores.values())),
            "controllers": _streams(program, list(entry.groups.values())),
        }
    return {
        "target": program.target_name,
        "rows_per_bank": program.rows,
        "image_bytes": sum(image.nbytes for image in program.images.values()),
        "code_bytes": sum(words.nbytes for words in program.code.values()),
        "entries": entries,
    }


def _streams(program: Program, tensors: list[str]) -> dict[str, int]:
    lengths = [len(program.code[tensor]) for tensor in tensors]
    sizes = [program.code[tensor].nbytes for tensor in tensors]
    return {
        "streams": len(tensors),
        "max_instructions": max(lengths, default=0),
        "max_bytes": max(sizes, default=0),
        "instructions": sum(lengths),
    }


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
    }
