"""A language model that counts: after token t comes token t + 1.  Small enough to test everything around a model.

Its tokenizer has the 256 bytes and the end token 256.
"""

from __future__ import annotations

from dataclasses import replace

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from xdsl.dialects.builtin import ModuleOp

from pimc.backends.builder import SramBuilder
from pimc.backends.link import link_program
from pimc.ir.locations import source_location
from pimc.isa.program import LoadedProgram
from pimc.isa.validate import validate_program
from pimc.passes.allocate import AllocatePass
from pimc.passes.base import PassContext
from pimc.passes.emit import EmitPass
from pimc.targets import load_target
from pimc.text import ModelInfo

VOCABULARY, CHUNK, MAX_SEQ, END = 257, 4, 12, 256
TEMPLATE = "{% for message in messages %}{{ message.content }}!{% endfor %}"


def byte_tokenizer() -> str:
    """A tokenizer of 256 byte tokens and the special token 256, ``<end>``, as tokenizer.json text."""
    alphabet = {symbol: number for number, symbol in enumerate(_byte_symbols())}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer.to_str()


def _byte_symbols() -> list[str]:
    """The symbol of each byte, by byte: printable ones stand for themselves, others for 256, 257 ..."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    symbols = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
    assert sorted(symbols) == sorted(pre_tokenizers.ByteLevel.alphabet())
    return symbols


def _entry(name: str, tokens: int) -> list[object]:
    """An entry: logits are 0, and 1 at the token after the last valid one (prefill: ``length``; decode: the only)."""
    b, program = SramBuilder.program(name, [0])
    b.at(source_location("counting", 1))
    ids, position = b.alloc("tokens", 4 * tokens, align=4), b.alloc("position", 4, align=4)
    b.port(ids, "tokens", "input", "i32", (1, tokens), range=(0, VOCABULARY - 1))
    b.port(position, "position", "input", "i32", (1,), range=(0, MAX_SEQ - tokens))
    last = b.const(0)
    if tokens > 1:
        length = b.alloc("length", 4, align=4)
        b.port(length, "length", "input", "i32", (1,), range=(1, tokens))
        last = b.addi(b.lw(b.address(length)), imm=-1)
    logits = b.alloc("logits", 2 * VOCABULARY + 2, align=4)
    zero, one = b.alloc("zero", 4, align=4), b.alloc("one", 4, align=4)
    b.port(logits, "logits", "output", "f16", (1, 1, VOCABULARY))
    b.sw(b.const(0), b.address(zero))
    b.sw(b.const(0x3F800000), b.address(one))
    start = b.address(logits)
    b.vfill_h(start, start, b.address(zero), b.const(VOCABULARY))
    token = b.lw(b.add(b.address(ids), b.slli(last, imm=2)))
    b.lw(b.address(position))
    at = b.add(start, b.slli(b.addi(token, imm=1), imm=1))
    b.vfill_h(at, at, b.address(one), b.const(1))
    return [program]


def counting_program(*, text: bool = True) -> LoadedProgram:
    """The program; with ``text``, its tokenizer and model metadata."""
    target = load_target("hpim")
    module = ModuleOp([*_entry("prefill", CHUNK), *_entry("decode", 1)])  # type: ignore[list-item]
    context = PassContext(machine=target)
    for step in (AllocatePass(), EmitPass()):
        step.run(module, context)
    program = link_program(module, None, target)
    info = ModelInfo("counting", MAX_SEQ, CHUNK, (END,), TEMPLATE, {})
    if text:
        program = replace(program, model=info.to_json(), tokenizer=byte_tokenizer())
    return validate_program(program)
