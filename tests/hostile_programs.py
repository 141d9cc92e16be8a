"""Hostile programs of code words: what a stranger's ``.pimx`` could make the simulator run.

``generate(seed)`` makes one: a target with overrides (some absurd), the streams of a few cores and controllers, and a
mode.  Most operands are such that instructions run deep into the engine, a few are extreme, and some programs have
words with flipped bits.  The same seed gives the same program.  ``attempt(case)`` runs one as ``pimc run`` would and
says how it ended; ``python tests/hostile_programs.py 0 3000`` runs a range of seeds, each batch in a process of its
own, and tells crashes, bugs (anything but a result or an error of the input) and runs past their limit.  With
``PIMC_GUARD=1`` every access of the engine is checked.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pimc.diagnostics import InternalError, PimcError
from pimc.isa.codec import encode, word_dtype
from pimc.isa.container import check_against_target, validate_program
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import Entry, Port, PortPiece, Program, stream_name
from pimc.isa.spec import Instruction, InstructionSet, Operand, OperandKind
from pimc.isa.sram import SRAM_ISA
from pimc.isa.sram_fields import CONFIG_REGISTERS
from pimc.runtime_sim import Machine
from pimc.targets import load_target

#: Seconds a program may take.
LIMIT_S = 20
_CORES, _ROWS, _FILL = 3, 4, 4096
_CONFIG = {name: number for name, (number, _) in CONFIG_REGISTERS.items()}

#: Overrides of the target, each group as a whole: small and odd memories, wide units, absurd figures.
TARGETS: tuple[tuple[str, ...], ...] = (
    ("memory.activation.bytes=4", "memory.temp.base=4", "memory.temp.bytes=4"),
    ("memory.activation.bytes=4096", "memory.temp.base=4096", "memory.temp.bytes=6"),
    ("memory.activation.bytes=1", "memory.temp.base=1", "memory.temp.bytes=4097"),
    ("vcu.lanes=4096",),
    ("vcu.lanes=3", "vcu.special_lanes=1"),
    ("tcu.columns=1",),
    ("tcu.columns=4096", "tcu.rows=1"),
    ("tcu.rows=4096", "tcu.columns=3"),
    (
        "pim_unit.macros_per_group=1024", "pim_unit.multipliers_per_macro=1024", "pim_unit.macro_groups=1",
        "pim_unit.macro_bytes=2048", "memory.pim_array.bytes=2097152",
    ),
    (
        "pim_unit.macros_per_group=2", "pim_unit.multipliers_per_macro=8", "pim_unit.macro_groups=1",
        "pim_unit.macro_bytes=48", "memory.pim_array.bytes=96",
    ),
    ("pim_unit.multipliers_per_macro=1024", "pim_unit.macro_bytes=2", "memory.pim_array.bytes=512"),
    ("hbm.bank_groups=1", "hbm.banks_per_group=3"),
    ("hbm.row_bytes=32",),
    ("hbm.row_bytes=96", "memory.global_buffer.bytes=32"),
    ("hbm.stacks=1", "hbm.channels=16", "hbm.pseudo_channels=2"),
    ("hbm.pu.result_registers=1",),
    ("hbm.timing.nREFI=721",),
    ("hbm.timing.nREFI=1",),
    ("hbm.timing.nRFC=281474976710656",),
    ("hbm.controller.signal_cycles=100000",),
    ("hbm.rows=16777216",),
    ("clock.core_period_fs=1000000000",),
    ("clock.core_period_fs=1000000000000",),
    ("latency.vector.pipeline=1048576",),
    ("latency.vector.pipeline=65536", "latency.vector_strided.rate=1048576"),
    ("transfer.queue_depth=1",),
    ("transfer.queue_depth=32",),
    ("cores.count=1", "noc.columns=1", "noc.rows=1"),
    ("cores.count=128", "noc.columns=128"),
    ("cores.semaphores=1",),
)  # fmt: skip


@dataclass(frozen=True)
class Hostile:
    """A program, its target and the mode to run it in."""

    seed: int
    overrides: tuple[str, ...]
    program: Program
    functional: bool
    checks: bool


@dataclass(frozen=True)
class _Source:
    """Where random values come from: the seed's generator, how often it is extreme, and what the target holds."""

    rng: random.Random
    extreme: float
    local_bytes: int
    lanes: int
    tcu: int

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def value(self, name: str) -> int:
        """A value for a register that an instruction takes as ``name``: mostly one that lets it run."""
        rng = self.rng
        if self.chance(self.extreme):
            return rng.choice((-1, -2, 2**31 - 1, -(2**31), 2**30, 1 << 20, rng.randrange(1 << 31)))
        if name in ("rows", "cols"):
            return rng.choice((0, 1, 2, 3, min(self.tcu, 16), self.tcu, self.tcu + 1 if self.chance(0.05) else 4))
        if name in ("message_rows", "parts", "group_size"):
            return rng.choice((1, 1, 1, 2, 3, 0 if self.chance(0.1) else 1))
        if name == "n":
            return rng.choice((0, 1, 1, 2, 16, 32, self.local_bytes // 2 if self.chance(0.1) else 8))
        if name == "depth":
            return rng.choice(
                (0, 1, 15, 16, 17, self.lanes, self.lanes - 1, self.lanes + 1 if self.chance(0.05) else 2)
            )
        if name == "vector_rows":
            return rng.choice((1, 2, 3, 16, 0 if self.chance(0.1) else 4))
        if name.startswith("vector_"):  # rows of the destination mostly apart
            return rng.choice((4, 32, 64, 64, 128, 256, 0, -64 if self.chance(0.2) else 64))
        if name.startswith(("stride", "message_")) or name == "pch_stride":
            return rng.choice((0, 2, 4, 32, 128, 256, -4 if self.chance(0.1) else 64))
        small = {
            "core": (0, 0, 1, _CORES), "group_base": (0, 0, 1), "head_dim": (2, 4, 16, 2), "lane": (0, 0, 1, 8),
            "pch_mask": (1, 1, 3, 15), "column": (0, 1, 31, 32, 33, 511), "row": (0, 0, 1, 3),
        }  # fmt: skip
        if name in small:
            return rng.choice(small[name])
        last = max(self.local_bytes - 64, 0)
        return rng.choice((0, 32, 64, 32 * rng.randrange(last // 32 + 1), last if self.chance(0.1) else 0, 128))

    def field(self, operand: Operand) -> int:
        """A value of an operand that is not a register."""
        if operand.name == "address":
            return 4 * self.rng.randrange(min(self.local_bytes, 4096) // 4)
        if self.chance(self.extreme):
            return self.rng.randint(operand.minimum, operand.maximum)
        return max(operand.minimum, min(operand.maximum, self.rng.choice((0, 0, 1, 2, 2))))


def _load(register: int, value: int) -> list[tuple[str, list[int]]]:
    high, low = value >> 16 & 0xFFFF, value & 0xFFFF
    return [("lui", [register, high]), ("ori", [register, register, low])]


def _core_instruction(source: _Source, instruction: Instruction) -> list[tuple[str, list[int]]]:
    """An instruction with the code that sets its registers and configuration registers."""
    lines: list[tuple[str, list[int]]] = []
    for name in instruction.config:
        if source.chance(0.9):
            lines += [*_load(31, source.value(name)), ("cfg", [_CONFIG[name], 31])]
    operands = []
    for position, operand in enumerate(instruction.operands):
        if operand.kind is OperandKind.REGISTER:
            lines += [] if operand.writes else _load(position + 1, source.value(operand.name))
            operands.append(position + 1)
        elif operand.kind is OperandKind.LABEL:
            operands.append(source.rng.choice((1, 1, 2)))
        elif instruction.unit == "scu" and operand.kind is OperandKind.SIGNED:
            operands.append(source.rng.choice((0, 4, 8, -4 if source.chance(0.05) else 12)))
        else:
            operands.append(source.field(operand))
    return [*lines, (instruction.mnemonic, operands)]


_WEIGHTS = {"scu": 1, "vcu": 2, "tcu": 12, "pim": 14, "trans": 16, "xfer": 8, "noc": 8}


def _core_stream(source: _Source) -> list[int]:
    choices = [i for i in SRAM_ISA.instructions if i.mnemonic not in ("halt", "wait") or source.chance(0.1)]
    weights = [_WEIGHTS[i.unit] for i in choices]
    lines: list[tuple[str, list[int]]] = []
    for instruction in source.rng.choices(choices, weights, k=source.rng.choice((1, 1, 1, 2, 3, 6, 12))):
        lines += _core_instruction(source, instruction)
    words = [encode(SRAM_ISA, *line) for line in lines]
    # a branch may jump over one word or two: behind the last one is a nop more
    return [*words, encode(SRAM_ISA, "nop", []), encode(SRAM_ISA, "halt", [])]


def _command(source: _Source, name: str, mask: int = 15) -> tuple[str, list[int]]:
    instruction = HBM_ISA.instructions[HBM_ISA.index[name]]
    operands = []
    for operand in instruction.operands:
        if operand.kind is OperandKind.MASK:
            operands.append(mask)
        elif operand.kind is OperandKind.REGISTER:
            operands.append(source.rng.randrange(3))
        elif operand.name == "row":
            operands.append(source.rng.choice((0, 0, 1, 2, -1 if source.chance(source.extreme) else 3)))
        elif operand.name == "count":
            operands.append(source.rng.choice((0, 1, 1, 2, 2, 32 if source.chance(source.extreme) else 1)))
        else:
            operands.append(source.field(operand))
    return name, operands


def _command_stream(source: _Source) -> list[int]:
    rng = source.rng
    lines = [("set", [0, 0]), *(("set", [register, 64 if source.chance(source.extreme) else 0]) for register in (1, 2))]
    depth = 0
    for _ in range(rng.randint(1, 10)):
        kind = rng.choice(("row", "row", "burst", "burst", "buffer", "loop", "end", "signal", "refresh", "add"))
        if kind == "row":
            mask = rng.choice((15, 15, 1, 5))
            middle = [
                _command(source, rng.choice(("mac", "mac", "rdres", "wrgb")), mask) for _ in range(rng.randint(0, 4))
            ]
            lines += [_command(source, "act", mask), *middle, ("pre", [mask])]
        elif kind == "burst":
            lines.append(_command(source, rng.choice(("rd", "wr"))))
        elif kind == "buffer":
            lines += [_command(source, "wrgb"), _command(source, "rdres")]
        elif kind == "loop" and depth < 3:
            depth += 1
            lines.append(("loop", [0, rng.choice((0, 1, 3, 40))]))
        elif kind == "end" and depth:
            depth -= 1
            lines.append(("endl", []))
        elif kind == "signal":
            lines.append(_command(source, "sig" if source.chance(0.95) else "wait"))
        elif kind == "refresh":
            lines.append(_command(source, "ref"))
        elif kind == "add":
            lines.append(("nop", []) if source.chance(0.7) else _command(source, rng.choice(("add", "addr", "set"))))
    lines += [("endl", [])] * depth + [("halt", [])]
    return [encode(HBM_ISA, *line) for line in lines]


def _damage(rng: random.Random, isa: InstructionSet, words: list[int]) -> list[int]:
    """Some bits flipped, words swapped or repeated."""
    words = list(words)
    for _ in range(rng.randint(1, 3)):
        a, b = rng.randrange(len(words)), rng.randrange(len(words))
        action = rng.randrange(3)
        if action == 0:
            words[a] ^= 1 << rng.randrange(isa.word_bits)
        elif action == 1:
            words[a], words[b] = words[b], words[a]
        else:
            words[a] = words[b]
    return words


def generate(seed: int) -> Hostile:
    """The hostile program of a seed."""
    rng = random.Random(seed)
    groups = rng.sample(TARGETS, rng.choice((0, 0, 1, 1, 1, 2, 3)))
    overrides = tuple(override for group in groups for override in group)
    code, names = {}, {"core": {}, "hbm": {}}
    try:
        target = load_target("hpim", overrides)
        figures = (target.local_bytes, target.pim_unit.lanes, min(target.tcu.rows, target.tcu.columns))
    except (PimcError, OverflowError):  # refused, which is what the program is for
        figures = (4096, 128, 64)
    source = _Source(rng, rng.choice((0, 0, 0.01, 0.05)), *figures)
    makers: tuple[tuple[str, InstructionSet, int, Callable[[_Source], list[int]]], ...] = (
        ("core", SRAM_ISA, rng.choice((1, 1, 1, 2, _CORES)), _core_stream),
        ("hbm", HBM_ISA, rng.choice((0, 0, 1, 2)), _command_stream),
    )
    for kind, isa, count, make in makers:
        for number in range(count):
            words = make(source)
            if rng.random() < 0.1:
                words = _damage(rng, isa, words)
            name = stream_name("main", kind, number)
            code[name] = np.array(words, word_dtype(isa))
            names[kind][number] = name
    fill = Port("x", "i32", (_FILL // 4,), (PortPiece(0, 0, 0, _FILL // 4),))
    inputs = (fill,) if rng.random() < 0.5 else ()
    entry = Entry(names["core"], names["hbm"], inputs)
    return Hostile(
        seed,
        overrides,
        Program("hpim", "", 1 if rng.random() < 0.05 else _ROWS, {"main": entry}, code),
        functional=rng.random() < 0.85,
        checks=rng.random() < 0.3,
    )


def attempt(case: Hostile) -> str:
    """Run a program; how it ended: ``done``, ``refused`` (an error of the input, by class), or ``BUG: ...``."""
    try:
        target = load_target("hpim", case.overrides)
        loaded = validate_program(case.program)
        if case.seed % 2 or target.local_bytes < _FILL:  # the other half: nothing but the engine's own checks
            check_against_target(loaded, target)
        machine = Machine(loaded, target, functional=case.functional, checks=case.checks)
        inputs = {port.name: np.full(port.shape, 0x3C003C00, np.int32) for port in loaded.entries["main"].inputs}
        machine.run("main", inputs)
    except TimeoutError:
        return f"BUG: not done after {LIMIT_S} s"
    except InternalError as error:
        return f"BUG: InternalError: {error}"
    except PimcError as error:
        return f"refused: {type(error).__name__}"
    except Exception as error:  # noqa: BLE001  # a bug is an outcome
        return f"BUG: {type(error).__name__}: {error}"
    return "done"


def _expired(_signal: int, _frame: object) -> None:
    raise TimeoutError


def _worker(first: int, last: int) -> None:
    """Run seeds one after the other, saying of each that it starts and how it ended."""
    signal.signal(signal.SIGALRM, _expired)
    idle = {"code/main/core/0": np.array([encode(SRAM_ISA, "halt", [])], np.uint32)}
    attempt(Hostile(0, (), Program("hpim", "", 1, {"main": Entry({0: "code/main/core/0"}, {})}, idle), True, True))
    for seed in range(first, last):
        sys.stdout.write(f"{seed} starts\n")
        sys.stdout.flush()
        signal.alarm(LIMIT_S)
        outcome = attempt(generate(seed))
        signal.alarm(0)
        sys.stdout.write(f"{seed} {outcome}\n")
        sys.stdout.flush()


def _batch(first: int, last: int, seconds: float) -> tuple[list[tuple[int, str]], int]:
    """Outcomes of seeds from ``first`` on, run in a process, and the seed to go on with after a crash."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(first), str(last)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        out, end = (
            done.stdout,
            f"exit {done.returncode}" if done.returncode >= 0 else signal.Signals(-done.returncode).name,
        )
        end += " " + done.stderr.strip()[-200:]
    except subprocess.TimeoutExpired as error:
        out, end = (error.stdout or b"").decode(), "hangs: it cannot be interrupted"
    found, started = [], first
    for line in out.splitlines():
        seed, _, outcome = line.partition(" ")
        if outcome == "starts":
            started = int(seed)
        else:
            found.append((int(seed), outcome))
    if len(found) < last - first:
        if found and found[-1][0] == started:  # the process died afterwards, of what its runs have left
            started += 1
            return [*found, (started - 1, f"CRASH: later: {end}")], started
        return [*found, (started, f"CRASH: {end}")], started + 1
    return found, last


def main() -> int:
    """Run a range of seeds and print what was found; 1 if anything is a crash, a bug or too long."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--batch", type=int, default=200, help="programs a process")
    options = parser.parse_args()
    if options.worker:
        _worker(options.first, options.last)
        return 0
    began, seed = time.monotonic(), options.first
    counts: collections.Counter[str] = collections.Counter()
    while seed < options.last:
        found, seed = _batch(seed, min(seed + options.batch, options.last), 900 + LIMIT_S * options.batch)
        for number, outcome in found:
            counts[outcome.split(":")[0] if outcome.startswith(("BUG", "CRASH")) else outcome] += 1
            if outcome.startswith(("BUG", "CRASH")):
                overrides = " ".join(generate(number).overrides) or "none"
                sys.stdout.write(f"seed {number}: {outcome} (overrides: {overrides})\n")
                sys.stdout.flush()
    guarded, took = os.environ.get("PIMC_GUARD", "0"), time.monotonic() - began
    summary = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
    sys.stdout.write(f"{options.last - options.first} programs, PIMC_GUARD={guarded}, {took:.0f} s: {summary}\n")
    return 1 if counts["BUG"] or counts["CRASH"] else 0


if __name__ == "__main__":
    sys.exit(main())
