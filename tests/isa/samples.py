"""Programs that the tests of the container and the assembler share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pimc.isa.codec import encode, word_dtype
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import CacheRegion, Entry, Locations, Port, PortPiece, Program
from pimc.isa.spec import InstructionSet, OperandKind
from pimc.isa.sram import SRAM_ISA


def words(isa: InstructionSet, *rows: tuple[str, *tuple[int, ...]]) -> np.ndarray:
    """A stream from (mnemonic, operands...) rows."""
    return np.array([encode(isa, mnemonic, operands) for mnemonic, *operands in rows], word_dtype(isa))


def core_stream(seed: int, size: int) -> np.ndarray:
    """Random instructions of the core, branches inside the stream, and halt."""
    return _random_stream(SRAM_ISA, seed, size)


def hbm_stream(seed: int, size: int) -> np.ndarray:
    """Random commands in two nested loops, and halt."""
    body = _random_stream(HBM_ISA, seed, size)[:-1]
    loops = words(HBM_ISA, ("loop", 1, 4), ("loop", 2, -1), ("endl",), ("endl",), ("halt",))
    return np.concatenate([loops[:2], body, loops[2:]])


def _random_stream(isa: InstructionSet, seed: int, size: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    result = []
    for pc in range(size):
        instruction = isa.instructions[random.integers(len(isa.instructions))]
        if instruction.mnemonic in ("loop", "endl", "halt"):
            instruction = isa.instructions[isa.index["nop"]]
        operands = [
            int(random.integers(size + 1)) - pc
            if operand.kind is OperandKind.LABEL
            else int(random.integers(operand.minimum, operand.maximum, endpoint=True))
            for operand in instruction.operands
        ]
        result.append(encode(isa, instruction.mnemonic, operands))
    return np.array([*result, encode(isa, "halt", ())], word_dtype(isa))


def sample(size: int = 40) -> Program:
    """A program with everything a file can hold: two entries, shared streams, ports, images, metadata."""
    tokens = Port("tokens", "i32", (1, 2), (PortPiece(0, 64, 0, 2), PortPiece(2, 64, 0, 2)))
    logits = Port("logits", "f16", (1, 1, 6), (PortPiece(0, 128, 0, 4), PortPiece(1, 0, 4, 2)))
    decode = Entry(
        {0: "code/decode/core/0", 1: "code/decode/core/1", 2: "code/decode/core/0", 3: "code/decode/core/0"},
        {0: "code/decode/hbm/0", 10: "code/decode/hbm/0"},
        (tokens,),
        (logits,),
    )
    code = {
        "code/decode/core/0": core_stream(1, size),
        "code/decode/core/1": core_stream(2, size),
        "code/decode/hbm/0": hbm_stream(3, size),
        "code/prefill/core/5": core_stream(4, 7),
    }
    index = np.arange(size + 1, dtype=np.int32) // 4 % 3 - 1
    image = np.arange(2 * 16 * 512, dtype=np.uint16).reshape(2, 16, 512)
    return Program(
        "hpim",
        "0" * 64,
        2,
        {"decode": decode, "prefill": Entry({5: "code/prefill/core/5"}, {})},
        code,
        {0: image, 11: image[:1] + np.uint16(7)},
        {"code/decode/core/0": Locations(('model.py:3 "q"', "model.py:4 \u2028é#"), index)},
        {"max_seq": 128, "chat": "{% if x %}\u2028 # }", "scale": 0.125, "eos": [1, None, True]},
        '{"tokenizer": "é\\n"}',
        (CacheRegion("k_cache", 0, 2, 64, 2, 32, 8),),
    )


def with_core(program: Program, stream: np.ndarray) -> Program:
    """The program with another stream on core 5 of prefill."""
    return replace(program, code={**program.code, "code/prefill/core/5": stream})
