"""Small programs from assembly text, for tests of the simulator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from pimc.isa.codec import decode_words, encode, word_dtype
from pimc.isa.program import STREAM_ISAS, Entry, LoadedProgram, Locations, Port, PortPiece
from pimc.isa.spec import InstructionSet, OperandKind
from pimc.isa.sram_fields import CONFIG_REGISTERS
from pimc.runtime_sim import Machine, RunResult
from pimc.targets import Target, load_target

CONFIG = {name: number for name, (number, _) in CONFIG_REGISTERS.items()}


def target(*overrides: str) -> Target:
    """The HPIM target."""
    return load_target("hpim", overrides)


def words(isa: InstructionSet, text: str) -> np.ndarray:
    """Assemble: one instruction a line, ``name:`` labels, ``#`` comments, ``li rX, value`` expands to lui + ori."""
    lines = []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("li "):
            register, value = (part.strip() for part in line[3:].split(","))
            number = int(value, 0) & 0xFFFFFFFF
            if number < 0x8000:
                lines.append(f"addi {register}, r0, {number}")
            else:
                lines += [f"lui {register}, {number >> 16}", f"ori {register}, {register}, {number & 0xFFFF}"]
        elif line.startswith("config "):
            name, value = (part.strip() for part in line[7:].split(","))
            lines += [f"addi r31, r0, {int(value, 0)}", f"cfg c{CONFIG[name]}, r31"]
        elif line:
            lines.append(line)
    labels: dict[str, int] = {}
    code = []
    for line in lines:
        if line.endswith(":"):
            labels[line[:-1]] = len(code)
        else:
            code.append(line)
    result = []
    for pc, line in enumerate(code):
        mnemonic, _, rest = line.partition(" ")
        instruction = isa.instructions[isa.index[mnemonic]]
        values = []
        parts = [part.strip() for part in rest.split(",") if part.strip()]
        for operand, part in zip(instruction.operands, parts, strict=True):
            if operand.kind is OperandKind.LABEL and part in labels:
                values.append(labels[part] - pc)
            else:
                values.append(int(re.sub(r"^[rhcs](?=\d)", "", part), 0))
        result.append(encode(isa, mnemonic, values))
    return np.array(result, word_dtype(isa))


def port(name: str, dtype: str, count: int, address: int, core: int = 0) -> Port:
    """A flat port of one core."""
    return Port(name, dtype, (count,), (PortPiece(core, address, 0, count),))


def program(
    cores: Mapping[int, str] | str = "",
    groups: Mapping[int, str] | str = "",
    inputs: Sequence[Port] = (),
    outputs: Sequence[Port] = (),
    rows: int = 4,
    images: Mapping[int, np.ndarray] | None = None,
    locations: Mapping[str, Locations] | None = None,
) -> LoadedProgram:
    """A program of one entry ``main``; a text alone is core 0's or group 0's."""
    texts = {"core": {0: cores} if isinstance(cores, str) else dict(cores)}
    texts["hbm"] = {0: groups} if isinstance(groups, str) else dict(groups)
    code, decoded, names = {}, {}, {"core": {}, "hbm": {}}
    for kind, streams in texts.items():
        for number, text in streams.items():
            if not text:
                continue
            name = f"code/main/{kind}/{number}"
            code[name] = words(STREAM_ISAS[kind], text)
            decoded[name] = decode_words(STREAM_ISAS[kind], code[name])
            names[kind][number] = name
    entry = Entry(names["core"], names["hbm"], tuple(inputs), tuple(outputs))
    return LoadedProgram("hpim", "", rows, {"main": entry}, code, images or {}, locations or {}, decoded=decoded)


def run(
    loaded: LoadedProgram, inputs: Mapping[str, np.ndarray] | None = None, on: Target | None = None, **options: bool
) -> RunResult:
    """Run entry ``main`` on a fresh machine."""
    return Machine(loaded, on or target(), **options).run("main", inputs)
