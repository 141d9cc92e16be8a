"""The tokenizer inside a GGUF file -> the JSON text of the `tokenizers` package.
 Byte-level BPE vocabularies ("gpt2" in GGUF terms) are built directly from the token and merge lists, which
takes a fraction of a second.  The splitting of text before BPE is named in the file (``tokenizer.ggml.pre``);
the patterns are those of the models' own tokenizer files.
"""

from __future__ import annotations

import json
from typing import Final, TypeAlias

from pimc.diagnostics import InputError
from pimc.frontends.gguf_file import GgufFile
from pimc.frontends.model import TokenizerData
from pimc.timings import stage

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | bool | None"

_CONTROL: Final = 3
_USER_DEFINED: Final = 4
_ROLES: Final = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_NUMBERS_3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NUMBERS_1: Final = _NUMBERS_3.replace(r"\p{N}{1,3}", r"\p{N}")


@stage("read the tokenizer")
def convert_tokenizer(file: GgufFile) -> TokenizerData:
    """The tokenizer of a GGUF file; InputError if its kind is not supported."""
    tokens = file.strings("tokenizer.ggml.tokens")
    if not tokens:
        return TokenizerData()
    kind = file.text("tokenizer.ggml.model")
    if kind != "gpt2":
        raise InputError(
            f"tokenizer kind {kind!r} is not supported, only byte-level BPE ('gpt2') is",
            hint="convert the model to a Hugging Face folder with a tokenizer.json",
            where=str(file.path),
        )
    special = {
        role: tokens[index]
        for key, role in _ROLES.items()
        if (index := file.integer(f"tokenizer.ggml.{key}_token_id")) is not None and 0 <= index < len(tokens)
    }
    return TokenizerData(
        tokenizer_json=json.dumps(_document(file, tokens, special), ensure_ascii=False),
        chat_template=file.text("tokenizer.chat_template"),
        eos_ids=_eos_ids(file, tokens),
        special=special,
    )


def _eos_ids(file: GgufFile, tokens: list[str]) -> list[int]:
    """Ids that end an answer: end of sequence, end of turn, and chat end markers among the control tokens."""
    ids = [file.integer(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot")]
    return sorted({index for index in ids if index is not None and 0 <= index < len(tokens)})


def _document(file: GgufFile, tokens: list[str], special: dict[str, str]) -> Json:
    kinds = file.integers("tokenizer.ggml.token_type")
    added: list[Json] = [
        {
            "id": index,
            "content": tokens[index],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for index, kind in enumerate(kinds[: len(tokens)])
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    vocabulary: dict[str, Json] = {token: index for index, token in enumerate(tokens)}
    merges: list[Json] = [_pair(line, file) for line in file.strings("tokenizer.ggml.merges")]
    pre = file.text("tokenizer.ggml.pre") or "default"
    byte_level: dict[str, Json] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre.startswith("qwen") else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _splitters(pre, file, byte_level)},
        "post_processor": _prefix(file, special, vocabulary),
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _pair(line: str, file: GgufFile) -> Json:
    left, space, right = line.partition(" ")
    if not space:
        raise InputError(f"tokenizer merge {line!r} is no pair", where=str(file.path))
    return [left, right]


def _splitters(pre: str, file: GgufFile, byte_level: dict[str, Json]) -> list[Json]:
    """The pre-tokenizers that stand for a value of ``tokenizer.ggml.pre``."""
    words: Json = {**byte_level, "use_regex": True}
    if pre in ("default", "gpt-2", "gpt2"):
        return [words]
    if pre in ("smollm", "starcoder", "refact", "command-r"):
        return [{"type": "Digits", "individual_digits": True}, words]
    pattern = {"llama-bpe": _NUMBERS_3, "llama3": _NUMBERS_3, "qwen2": _NUMBERS_1}.get(pre)
    if pattern is None:
        raise InputError(
            f"text splitting {pre!r} of the tokenizer is not supported",
            hint="convert the model to a Hugging Face folder with a tokenizer.json",
            where=str(file.path),
        )
    split: Json = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [split, {**byte_level, "use_regex": False}]


def _prefix(file: GgufFile, special: dict[str, str], vocabulary: dict[str, Json]) -> Json:
    """A post-processor that begins every text with the beginning-of-sequence token, if the file asks for
    it.
    """
    bos = special.get("bos_token")
    if file.metadata.get("tokenizer.ggml.add_bos_token") is not True or bos is None:
        return None
    first: Json = {"SpecialToken": {"id": bos, "type_id": 0}}
    text_a: Json = {"Sequence": {"id": "A", "type_id": 0}}
    text_b: Json = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text_a],
        "pair": [first, text_a, text_b],
        "special_tokens": {bos: {"id": bos, "ids": [vocabulary[bos]], "tokens": [bos]}},
    }
