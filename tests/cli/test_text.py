"""Tokenizer, chat template and text streaming, with a tokenizer of bytes."""

from __future__ import annotations

import json

import pytest
from counting_model import byte_tokenizer

from pimc.diagnostics import InputError
from pimc.text import ModelInfo, Stream, TextCodec

INFO = ModelInfo(name="bytes", max_seq=64, prefill_chunk=8, eos_ids=(256,), special={"eos_token": "<end>"})


def codec(template: str | None = None) -> TextCodec:
    info = ModelInfo.from_json({**INFO.to_json(), "chat_template": template})
    return TextCodec(byte_tokenizer(), info)


def test_round_trip() -> None:
    text = codec()
    assert text.decode(text.encode("Grüße, 世界", chat=False)) == "Grüße, 世界"
    assert text.decode([*text.encode("ab", chat=False), 256]) == "ab"


def test_chat_template_as_model_libraries_render_it() -> None:
    template = (
        "{% for message in messages %}\n"
        "{{ message['role'] + ': ' + message['content'] + eos_token }}\n"
        "{% endfor %}\n"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    ids = codec(template).encode("hi", chat=True)
    assert 256 in ids  # the special token is one token, not its letters
    assert codec().decode(ids) == "user: hi\nassistant:"


@pytest.mark.parametrize(
    "template",
    [None, "{{ raise_exception('no') }}", "{% for %}", "{{ ''.__class__.__mro__ }}"],
)
def test_templates_that_fail(template: str | None) -> None:
    with pytest.raises(InputError):
        codec(template).encode("hi", chat=True)


def test_streaming_holds_back_parts_of_characters() -> None:
    text = codec()
    stream = Stream(text)
    pieces = [stream.push(token) for token in text.encode("a世b", chat=False)]
    assert pieces == ["a", "", "", "世", "b"]
    assert stream.finish() == ""
    assert stream.text == "a世b"


def test_a_broken_last_character_is_shown_at_the_end() -> None:
    text = codec()
    stream = Stream(text)
    assert stream.push(text.encode("世", chat=False)[0]) == ""
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize(
    "change",
    [
        {"max_seq": 0},
        {"max_seq": "64"},
        {"max_seq": 1 << 31},
        {"prefill_chunk": True},
        {"eos_ids": [-1]},
        {"eos_ids": [0] * 1025},
        {"chat_template": 3},
        {"chat_template": "x" * ((1 << 20) + 1)},
        {"name": "x" * 1001},
        {"special": {"a": 1}},
        {"special": {str(i): "" for i in range(257)}},
        {"other": 1 << 64},
        {"other": float("inf")},
        {"other": ["\ud800"]},
        {"other": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]},
        {"other": list(range(1 << 18))},
        {"target_overrides": [3]},
        {"ports": {"main": []}},
    ],
    ids=lambda change: str(change)[:30],
)
def test_malformed_metadata(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="malformed"):
        ModelInfo.from_json({**INFO.to_json(), **change})


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"version": "1.0"})])
def test_malformed_tokenizer(text: str) -> None:
    with pytest.raises(InputError, match="malformed"):
        TextCodec(text, INFO)
