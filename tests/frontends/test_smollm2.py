"""SmolLM2-135M-Instruct from its GGUF file: import, raise, and the greedy answer in the interpreter."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import jinja2
import numpy as np
import pytest
from tokenizers import Tokenizer

from pimc.frontends import import_model
from pimc.ir.interpreter import Interpreter
from pimc.passes.base import PassContext
from pimc.passes.raise_ops import RaisePass


@pytest.mark.slow
def test_answer(smollm2_gguf: Path) -> None:
    start = time.perf_counter()
    model = import_model(smollm2_gguf, max_seq=64, prefill_chunk=16)
    assert time.perf_counter() - start < 60
    RaisePass().run(model.module, PassContext())
    counts = Counter(op.name for op in model.module.walk())
    assert (counts["nn.attention"], counts["nn.rope"], counts["nn.rms_norm"]) == (60, 120, 122)
    assert (counts["nn.reshape"], counts["nn.transpose"], counts["nn.matmul"]) == (0, 0, 0)

    assert model.tokenizer_json is not None
    assert model.chat_template is not None
    tokenizer = Tokenizer.from_str(model.tokenizer_json)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    template = jinja2.Template(model.chat_template)
    text = template.render(messages=question, add_generation_prompt=True, **model.special)
    ids = tokenizer.encode(text).ids
    interpreter = Interpreter(model.module, model.weights, "f32")
    logits = np.zeros(0)
    for first in range(0, len(ids), 16):
        chunk = ids[first : first + 16]
        padded = np.array([chunk + [0] * (16 - len(chunk))], np.int32)
        inputs = {"tokens": padded, "position": np.array([first]), "length": np.array([len(chunk)])}
        (logits,) = interpreter.call("prefill", inputs).values()
    answer: list[int] = []
    while (token := int(np.argmax(logits))) not in model.eos_ids and len(answer) < 12:
        position = np.array([len(ids) + len(answer)])
        answer.append(token)
        (logits,) = interpreter.call("decode", {"tokens": np.array([[token]]), "position": position}).values()
    assert tokenizer.decode(answer) == "The capital of France is Paris."
