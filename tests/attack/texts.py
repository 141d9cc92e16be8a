"""Texts: targets, overrides of a target, assembly, IR."""

from __future__ import annotations

import contextlib
import io
import random
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from counting_model import counting_program
from isa.samples import sample

from attack.binaries import NAME, binary
from attack.case import Case, Kind
from attack.damage import TEXTS, damage_text, number
from pimc.cli.main import main as pimc
from pimc.isa.disasm import disassemble
from pimc.isa.hbm import HBM_ISA
from pimc.isa.sram import SRAM_ISA
from pimc.isa.validate import validate_program

_FILECHECK = Path(__file__).resolve().parents[1] / "passes" / "filecheck"
_MNEMONICS = [instruction.mnemonic for isa in (SRAM_ISA, HBM_ISA) for instruction in isa.instructions]
_DIRECTIVES = (
    ".pimx", ".target", ".rows", ".images", ".tokenizer", ".model", ".entry", ".input", ".output", ".piece", ".stream",
    ".location", ".loc", ".same", "r0", "r32", "h0", "s0", "core", "entry", "0b11", "0x", "label:",
)  # fmt: skip
_TYPES = (
    "tensor<1x2xf32>", "tensor<?xf16>", "tensor<0xi32>", "f16", "i64", "index", "vector<4xf32>", "none", "() -> ()",
    "dense<0.0>", "array<i64: 1, 2>", '"x"', "%0", "@x", "#pim.x", "loc(unknown)", "unit", "true", "{", "}", "[", "]",
)  # fmt: skip


def _targets() -> list[bytes]:
    return [path.read_bytes() for path in files("pimc.targets").iterdir() if path.name.endswith(".toml")]  # type: ignore[attr-defined]


def _target(rng: random.Random, corpus: Sequence[bytes]) -> Case:
    text = damage_text(rng, rng.choice(corpus), ["[[unit]]", "name", "=", "count"], corpus)
    commands = [["targets", "x.toml"]]
    given = {"x.toml": text}
    if rng.random() < 0.15:
        given[NAME] = binary(counting_program(text=False))
        commands.append(_use("--target-file", "x.toml"))
    return Case("target", given, commands, text)


def _use(*options: str) -> list[str]:
    limits = ["--timing-only", "--timeout", "10", "--max-cycles", "100000"]
    return ["run", NAME, "--entry", "decode", *limits, *options]


def _override_keys() -> list[bytes]:
    """Dotted keys of every figure of a target."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        pimc(["targets", "hpim"])
    return [line.partition(" = ")[0].encode() for line in out.getvalue().splitlines()]


def _override(rng: random.Random, seeds: Sequence[bytes]) -> Case:
    overrides = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        key = rng.choice(seeds).decode()
        if rng.random() < 0.1:
            key = damage_text(rng, key.encode(), TEXTS, seeds).decode(errors="replace")
        value = rng.choice((str(number(rng)), str(number(rng)), rng.choice(TEXTS), "2 * 3", "1 << 40", "[]", "-1"))
        overrides += ["--set", f"{key}={value}".replace("\0", "")]
    commands = [["targets", "hpim", *overrides]]
    given = {}
    if rng.random() < 0.4:
        given[NAME] = binary(counting_program(text=False))
        commands = [_use(*overrides)]
    return Case("override", given, commands)


def _assembly() -> list[bytes]:
    programs = (validate_program(sample(size)) for size in (10, 40))
    return [disassemble(program, reference=NAME).encode() for program in (*programs, counting_program())]


def _asm(rng: random.Random, corpus: Sequence[bytes]) -> Case:
    text = damage_text(rng, rng.choice(corpus), [*_MNEMONICS, *_DIRECTIVES], corpus)
    commands = [["asm", "x.pasm", "-o", "out.pimx"]]
    given = {"x.pasm": text}
    if rng.random() < 0.3:
        given[NAME] = binary(counting_program())
    return Case("assembly", given, commands, text)


def _ir_texts() -> list[bytes]:
    return [path.read_bytes() for path in sorted(_FILECHECK.glob("*.mlir"))]


def _ir(rng: random.Random, corpus: Sequence[bytes]) -> Case:
    source = rng.choice(corpus)
    words = [*_TYPES, *(re.findall(rb"(?:nn|pim|sram|hbm)\.\w+", rng.choice(corpus)) and _names(rng.choice(corpus)))]
    text = damage_text(rng, source, words or _TYPES, corpus)
    run = re.match(rb"// RUN: (.*)", source)
    pipeline = run[1].decode() if run and rng.random() < 0.8 else rng.choice(("", "canonicalize,cse,dce", "annotate"))
    compile_too = rng.random() < 0.1
    commands = [["opt", "x.mlir", "-p", pipeline, "-o", "out.mlir"]]
    if compile_too:
        commands.append(["compile", "x.mlir", "-o", "out.pimx"])
    return Case("ir", {"x.mlir": text}, commands, text)


def _names(data: bytes) -> list[str]:
    return [name.decode() for name in re.findall(rb"(?:nn|pim|sram|hbm)\.\w+", data)]


KINDS = (
    Kind("target", _targets, _target, guided=True, share=2),
    Kind("override", _override_keys, _override, share=2),
    Kind("assembly", _assembly, _asm, guided=True, share=3),
    Kind("ir", _ir_texts, _ir, guided=True, share=3),
)
