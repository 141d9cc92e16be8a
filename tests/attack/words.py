"""Hostile code words: programs of ``hostile_programs``, as files, on targets with absurd figures."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hostile_programs import generate

from attack.binaries import NAME, binary
from attack.case import Case, Kind
from pimc.isa.codec import encode
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import Program
from pimc.isa.sram import SRAM_ISA
from pimc.targets import load_target

_INPUTS = "in.npz"


def unchecked(program: Program) -> bytes:
    """The bytes of a program that ``write_program`` might refuse: written with words that do nothing, then filled."""
    halts = {np.dtype(np.uint32): encode(SRAM_ISA, "halt", []), np.dtype(np.uint64): encode(HBM_ISA, "halt", [])}
    idle = {name: np.full(words.shape, halts[words.dtype], words.dtype) for name, words in program.code.items()}
    data = bytearray(binary(replace(program, code=idle)))
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    for name, words in program.code.items():
        begin, end = header[name]["data_offsets"]
        data[start + begin : start + end] = words.tobytes()
    return bytes(data)


def _words(rng: random.Random, _seeds: Sequence[bytes]) -> Case:
    hostile = generate(rng.getrandbits(48))
    options = [] if hostile.functional else ["--timing-only"]
    options += [] if hostile.checks else ["--no-checks"]
    for override in hostile.overrides:
        options += ["--set", override]
    # Without overrides, the binary says itself that this is its target.
    program = replace(hostile.program, target_digest=load_target("hpim").digest)
    given = {NAME: unchecked(program)}
    if ports := hostile.program.entries["main"].inputs:
        archive = io.BytesIO()
        np.savez(archive, **{port.name: np.full(port.shape, 0x3C003C00, np.int32) for port in ports})
        given[_INPUTS] = archive.getvalue()
        options += ["--inputs", _INPUTS]
    limits = ["--timeout", "10", "--max-cycles", "100000000"]
    return Case("words", given, [["run", NAME, *limits, *options]])


KINDS = (Kind("words", list, _words, share=6),)
