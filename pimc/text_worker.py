"""Tokenizer and chat template of a binary, at work in a process of their own (:mod:`pimc.child`).

Needs only tokenizers and jinja2, so that a binary generates text where no model library is installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_loaded: list[Tokenizer] = []  # the one tokenizer of this process


def answer(question: Mapping[str, object]) -> Mapping[str, object]:
    """Answer ``{"do": name, ...}``: what fails raises."""
    return _ACTIONS[str(question["do"])](question)


def _load(question: Mapping[str, object]) -> Mapping[str, object]:
    """``tokenizer``: the text of tokenizer.json."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(str(question["tokenizer"]))
    # As model libraries do: padding and truncation are for batches.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _loaded[:] = [tokenizer]
    return {}


def _encode(question: Mapping[str, object]) -> Mapping[str, object]:
    """``text``, ``special`` (whether to add the tokens around a text) -> ``ids``."""
    return {"ids": _loaded[0].encode(str(question["text"]), add_special_tokens=question["special"] is True).ids}


def _decode(question: Mapping[str, object]) -> Mapping[str, object]:
    """``ids``: lists of token numbers -> ``texts``, special tokens left out."""
    lists = question["ids"]
    assert isinstance(lists, list)
    return {"texts": [_loaded[0].decode(ids, skip_special_tokens=True) for ids in lists]}


def _render(question: Mapping[str, object]) -> Mapping[str, object]:
    """``template``, ``values`` -> ``text``, as model libraries render chat templates."""
    import jinja2.ext
    import jinja2.sandbox

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    values = question["values"]
    assert isinstance(values, dict)
    text = environment.from_string(str(question["template"])).render(values)
    text.encode()  # raises where a template makes halves of characters
    return {"text": text}


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


_ACTIONS: Mapping[str, Callable[[Mapping[str, object]], Mapping[str, object]]] = {
    "load": _load,
    "encode": _encode,
    "decode": _decode,
    "render": _render,
}
