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


def _value(rng: random.Random, name: str) -> int:
    """A value for a register that an instruction takes as ``name``: mostly one that lets it run."""
    if rng.random() < 0.04:
        return rng.choice((-1, -2, 2**31 - 1, -(2**31), 2**30, 1 << 20, rng.randrange(1 << 31)))
    if name in ("n", "rows", "cols", "parts", "message_rows", "group_size"):
        return rng.choice((0, 1, 2, 3, 8, 16, 17, 64, 128, 200, rng.randrange(5000)))
    if name == "depth":
        return rng.choice((0, 1, 15, 16, 17, 128, 256, 300, 16384, 1 << 20, rng.randrange(1 << 12)))
    if name.startswith(("stride", "message_")) or name == "pch_stride":
        return rng.choice((0, 2, 4, 32, 128, 256, -2, 1024, 2 * rng.randrange(600)))
    if name in ("core", "group_base"):
        return rng.randrange(_CORES + 1)
    if name == "head_dim":
        return rng.choice((2, 4, 16, 64))
    if name in ("lane", "pch_mask"):
        return rng.choice((0, 1, 3, 8, 15, 112))
    if name == "column":
        return rng.randrange(600)
    if name == "row":
        return rng.randrange(5)
    return rng.choice((0, 0, 4, 8, 64, 128, 2048, 8192, 425_984 - 4, 425_984 - 64, 4 * rng.randrange(1 << 14)))


def _load(register: int, value: int) -> list[tuple[str, list[int]]]:
    high, low = value >> 16 & 0xFFFF, value & 0xFFFF
    return [("lui", [register, high]), ("ori", [register, register, low])]


def _field(rng: random.Random, operand: Operand) -> int:
    """A value of an operand that is not a register."""
    small = min(operand.maximum, rng.choice((0, 1, 2, 4, 31)))
    return max(operand.minimum, small) if rng.random() < 0.9 else rng.randint(operand.minimum, operand.maximum)


def _core_instruction(rng: random.Random, instruction: Instruction) -> list[tuple[str, list[int]]]:
    """An instruction with the code that sets its registers and configuration registers."""
    lines: list[tuple[str, list[int]]] = []
    for name in instruction.config:
        if rng.random() < 0.9:
            lines += [*_load(31, _value(rng, name)), ("cfg", [_CONFIG[name], 31])]
    operands = []
    for position, operand in enumerate(instruction.operands):
        if operand.kind is OperandKind.REGISTER:
            lines += [] if operand.writes else _load(position + 1, _value(rng, operand.name))
            operands.append(position + 1)
        elif operand.kind is OperandKind.LABEL:
            operands.append(rng.choice((1, 1, 2)))
        else:
            operands.append(_field(rng, operand))
    return [*lines, (instruction.mnemonic, operands)]


_WEIGHTS = {"scu": 1, "vcu": 2, "tcu": 12, "pim": 14, "trans": 16, "xfer": 8, "noc": 8}


def _core_stream(rng: random.Random) -> list[int]:
    choices = [i for i in SRAM_ISA.instructions if i.mnemonic not in ("halt", "wait") or rng.random() < 0.2]
    weights = [_WEIGHTS[i.unit] for i in choices]
    lines: list[tuple[str, list[int]]] = []
    for instruction in rng.choices(choices, weights, k=rng.randint(1, 24)):
        lines += _core_instruction(rng, instruction)
    words = [encode(SRAM_ISA, *line) for line in lines]
    # a branch may jump over one word or two: behind the last one is a nop more
    return [*words, encode(SRAM_ISA, "nop", []), encode(SRAM_ISA, "halt", [])]


def _command(rng: random.Random, name: str) -> tuple[str, list[int]]:
    instruction = HBM_ISA.instructions[HBM_ISA.index[name]]
    operands = []
    for operand in instruction.operands:
        if operand.kind is OperandKind.MASK:
            operands.append(rng.choice((15, 15, 1, 5, rng.randrange(16))))
        elif operand.kind is OperandKind.REGISTER:
            operands.append(rng.randrange(3))
        elif operand.name == "row":
            operands.append(rng.choice((0, 1, 2, 3, 3, rng.randint(-2, 5))))
        elif operand.name == "address":
            operands.append(4 * rng.randrange(1 << 10) if rng.random() < 0.9 else rng.randint(0, operand.maximum))
        else:
            operands.append(_field(rng, operand))
    return name, operands


def _command_stream(rng: random.Random) -> list[int]:
    lines = [("set", [register, _value(rng, "address")]) for register in range(3) if rng.random() < 0.7]
    depth = 0
    for _ in range(rng.randint(1, 16)):
        kind = rng.choice(("row", "row", "burst", "burst", "buffer", "loop", "end", "signal", "refresh", "add"))
        if kind == "row":
            middle = [_command(rng, rng.choice(("mac", "mac", "rdres", "wrgb"))) for _ in range(rng.randint(0, 4))]
            act, pre = _command(rng, "act"), _command(rng, "pre")
            lines += [act, *middle, ("pre", act[1][:1]) if rng.random() < 0.95 else pre]
        elif kind == "burst":
            lines.append(_command(rng, rng.choice(("rd", "wr"))))
        elif kind == "buffer":
            lines += [_command(rng, "wrgb"), _command(rng, "rdres")]
        elif kind == "loop" and depth < 3:
            depth += 1
            lines.append(("loop", [0 if rng.random() < 0.1 else 3, rng.choice((0, 1, 3, 40))]))
        elif kind == "end" and depth:
            depth -= 1
            lines.append(("endl", []))
        elif kind == "signal":
            lines.append(_command(rng, "sig" if rng.random() < 0.8 else "wait"))
        elif kind == "refresh":
            lines.append(_command(rng, "ref"))
        elif kind == "add":
            lines.append(_command(rng, rng.choice(("add", "addr", "set", "nop"))))
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
    makers: tuple[tuple[str, InstructionSet, int, Callable[[random.Random], list[int]]], ...] = (
        ("core", SRAM_ISA, rng.choice((1, 1, 2, _CORES)), _core_stream),
        ("hbm", HBM_ISA, rng.choice((0, 1, 2)), _command_stream),
    )
    for kind, isa, count, make in makers:
        for number in range(count):
            words = make(rng)
            if rng.random() < 0.15:
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
        Program("hpim", "", rng.choice((1, _ROWS, _ROWS, _ROWS)), {"main": entry}, code),
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
