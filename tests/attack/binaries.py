"""Binaries: damaged bytes, damaged metadata, hostile tokenizers and chat templates."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from counting_model import byte_tokenizer, counting_program
from isa.samples import sample
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from attack.case import Case, Kind
from attack.damage import TEXTS, damage_bytes, damage_json, damage_text, number
from pimc.isa.container import write_program
from pimc.isa.program import Program

NAME = "x.pimx"
_RUN = ["run", NAME, "--entry", "decode", "--timing-only", "--timeout", "10", "--max-cycles", "100000"]
_GENERATE = ["generate", NAME, "--prompt", "a b", "--max-new-tokens", "2"]


def binary(program: Program) -> bytes:
    """The bytes of a ``.pimx`` file."""
    with tempfile.TemporaryDirectory() as folder:
        write_program(Path(folder) / NAME, program)
        return (Path(folder) / NAME).read_bytes()


def _programs() -> list[bytes]:
    return [binary(sample()), binary(counting_program())]


def _split(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size], data[8 + size :]


def _join(header: bytes, body: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def _commands(rng: random.Random) -> list[list[str]]:
    """What is done with a binary: it is looked at, and one time in four used."""
    uses = [_RUN, [*_GENERATE], [*_GENERATE, "--chat"], ["asm", "x.pasm", "-o", "again.pimx"]]
    looks = [["disasm", NAME, "-o", "x.pasm"], ["info", NAME]]
    return [rng.choice(looks), *([rng.choice(uses)] if rng.random() < 0.25 else [])]


def _header(rng: random.Random, seeds: Sequence[bytes]) -> Case:
    data = rng.choice(seeds)
    end = 8 + int.from_bytes(data[:8], "little")
    return Case("header", {NAME: damage_bytes(rng, data, rng.choice((9, end, end + 400)))}, _commands(rng))


def _metadata(rng: random.Random, seeds: Sequence[bytes]) -> Case:
    header, body = _split(rng.choice(seeds))
    value = json.loads(header)
    metadata = value["__metadata__"]
    part = rng.choice(("pimx", "pimx", "model", "debug", None))
    if part in metadata:
        metadata[part] = json.dumps(damage_json(rng, json.loads(metadata[part])))
    else:
        value = damage_json(rng, value)
    return Case("metadata", {NAME: _join(json.dumps(value).encode(), body)}, _commands(rng))


def _tokenizers() -> list[bytes]:
    """Tokenizers of every kind: byte pairs, pieces of words, words, unigrams, with all that surrounds them."""
    words = {"[UNK]": 0, "a": 1, "b": 2, "##b": 3, "ab": 4, "<s>": 5}
    found = [byte_tokenizer()]
    for model in (
        models.BPE(words, [("a", "b")], unk_token="[UNK]", byte_fallback=True),
        models.WordPiece(words, unk_token="[UNK]"),
        models.WordLevel(words, unk_token="[UNK]"),
        models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], 0, byte_fallback=False),
    ):
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace("a", "ab"), normalizers.Prepend("_"), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.Digits(), pre_tokenizers.Metaspace()]
        )
        tokenizer.decoder = decoders.Sequence([decoders.Replace("_", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B:1", special_tokens=[("<s>", 5)]
        )
        tokenizer.add_special_tokens(["<s>"])
        tokenizer.enable_padding(length=8)
        tokenizer.enable_truncation(64)
        found.append(tokenizer.to_str())
    return [text.encode() for text in found]


def _with_text(tokenizer: str, template: str) -> bytes:
    program = counting_program()
    assert program.model is not None
    return binary(replace(program, tokenizer=tokenizer, model={**program.model, "chat_template": template}))


def _tokenizer(rng: random.Random, seeds: Sequence[bytes]) -> Case:
    value = damage_json(rng, json.loads(rng.choice(seeds)))
    text = json.dumps(value)
    if rng.random() < 0.2:
        text = damage_bytes(rng, text.encode()).decode(errors="replace")
    return Case("tokenizer", {NAME: _with_text(text, "{{ messages }}")}, [[*_GENERATE, *_chat(rng)]])


def _chat(rng: random.Random) -> list[str]:
    return ["--chat"] if rng.random() < 0.3 else []


_ATOMS = (
    "messages", "messages[0]", "messages[0]['content']", "eos_token", "undefined", "range", "loop", "self", "cycler",
    "namespace", "lipsum", "dict", "joiner", "raise_exception", "strftime_now", "''", "'x'", "[]", "{}", "none", "true",
    "(1, 2)", "0.5", "1e308",
)  # fmt: skip
_FILTERS = (
    "upper", "length", "list", "join(',')", "tojson", "safe", "abs", "int", "float", "indent(100000)", "first", "last",
    "batch(1000000)", "center(100000000)", "wordwrap(1)", "sort", "unique", "map('upper')", "select", "format(1)",
    "xmlattr", "pprint", "slice(1000000)", "replace('', 'xxxxxxxx')", "truncate(1)", "filesizeformat", "random",
    "groupby('a')", "attr('__class__')", "sum", "round(3)", "urlize", "string", "reverse", "default(1)",
)  # fmt: skip
_OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "in", "and", "==", "<", "is")


def _expression(rng: random.Random, depth: int = 0) -> str:
    if depth > 3 or rng.random() < 0.25:
        return rng.choice((rng.choice(_ATOMS), str(number(rng)), repr(rng.choice(TEXTS)[:50])))
    inner = _expression(rng, depth + 1)
    form = rng.randrange(7)
    if form < 2:
        return f"({inner} {rng.choice(_OPERATORS)} {_expression(rng, depth + 1)})"
    if form == 2:
        return f"({inner} | {rng.choice(_FILTERS)})"
    if form == 3:
        return f"{inner}.{rng.choice(('__class__', 'append', 'items', 'mro', 'format', 'x', 'join', 'index'))}"
    if form == 4:
        return f"{inner}({_expression(rng, depth + 1)})"
    if form == 5:
        return f"range({number(rng)})"
    return f"[{inner}] * {number(rng)}"


def _statement(rng: random.Random, depth: int = 0) -> str:
    inner = "".join(_statement(rng, depth + 1) for _ in range(rng.randint(0, 2))) if depth < 4 else "x"
    form = rng.randrange(8)
    if form == 0:
        return f"{{% for a in {_expression(rng, 2)} %}}{inner}{{% endfor %}}"
    if form == 1:
        return f"{{% for a in range({rng.choice((10, 1000, 99999))}) %}}{inner}{{% endfor %}}"
    if form == 2:
        return f"{{% if {_expression(rng, 2)} %}}{inner}{{% else %}}x{{% endif %}}"
    if form == 3:
        return f"{{% set a = {_expression(rng)} %}}{inner}"
    if form == 4:
        return f"{{% macro m(a) %}}{inner}{{{{ m(a) }}}}{{% endmacro %}}{{{{ m({_expression(rng, 2)}) }}}}"
    if form == 5:
        return f"{{% filter {rng.choice(_FILTERS)} %}}{inner}{{% endfilter %}}"
    return f"{{{{ {_expression(rng)} }}}}{inner}"


def _template(rng: random.Random, seeds: Sequence[bytes]) -> Case:
    text = "".join(_statement(rng) for _ in range(rng.randint(1, 3)))
    if rng.random() < 0.3:
        source = rng.choice([*seeds, text.encode()])
        text = damage_text(rng, source, ["{{", "}}", "{%", "%}", *_ATOMS, *_FILTERS], seeds).decode(errors="replace")
    return Case("template", {NAME: _with_text(byte_tokenizer(), text)}, [[*_GENERATE, "--chat"]])


def _templates() -> list[bytes]:
    return [
        b"{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}",
        b"{%- set n = namespace(x=0) -%}{%- for m in messages if m.role -%}{% set n.x = n.x + 1 %}{{ n.x }}{% break %}"
        b"{%- endfor -%}{{ messages | tojson(indent=2) }}{{ strftime_now('%d') }}",
    ]


KINDS = (
    Kind("header", _programs, _header, share=3),
    Kind("metadata", _programs, _metadata, share=3),
    Kind("tokenizer", _tokenizers, _tokenizer),
    Kind("template", _templates, _template),
)
