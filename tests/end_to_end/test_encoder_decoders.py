"""Encoder-decoders on the machine against `transformers`: T5 and Whisper, ``encode`` once, then ``decode`` by token."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

import pimc
from pimc.diagnostics import InputError, UsageError
from pimc.frontends.encoder_decoder_entries import FAMILIES as KINDS
from pimc.frontends.huggingface import ENCODER_DECODER_TYPES
from pimc.isa.container import load_program
from pimc.runtime import Executable

VOCAB, SOURCE, MAX_SEQ = 100, 20, 24
TOKENS = [0, 5, 7, 9, 3, 60]
#: Of logits and hidden states, in parts of their root mean square (docs/numerics.md).
BOUND = 2.0**-6
T5 = {
    "vocab_size": VOCAB, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 3,
    "num_heads": 4, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}  # fmt: skip
WHISPER = {
    "vocab_size": VOCAB, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "num_mel_bins": 10,
    "max_source_positions": 30, "max_target_positions": MAX_SEQ, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1, "suppress_tokens": None, "begin_suppress_tokens": None,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A small model, and how much larger than at first its weights are: so that positions show in the logits (T5 does
    not scale its scores: at 3, PyTorch's own fp16 logits are an eighth of their size off).
    """

    make: Callable[[], PreTrainedModel]
    scale: float


FAMILIES = {
    "t5": Family(lambda: T5ForConditionalGeneration(T5Config(**T5)), 2.0),
    # T5 1.1: a gated feed-forward network, and a head of its own
    "t5-gated": Family(
        lambda: T5ForConditionalGeneration(
            T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        ), 1.5,
    ),
    # inner size of attention other than the model's, and one bank column a head
    "t5-narrow": Family(lambda: T5ForConditionalGeneration(T5Config(**T5 | {"d_kv": 24, "num_heads": 2})), 2.0),
    "whisper": Family(lambda: WhisperForConditionalGeneration(WhisperConfig(**WHISPER)), 8.0),
}  # fmt: skip


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = FAMILIES[name].make().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            vector = parameter.ndim == 1
            fixed = vector or "relative" in key or "embed_positions" in key
            value = parameter + 0.1 * torch.randn_like(parameter) if vector else parameter
            parameter.copy_((value if fixed else FAMILIES[name].scale * value).half().float())
    return model


def close(got: np.ndarray, want: torch.Tensor) -> None:
    wanted = want.detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=BOUND * float(np.sqrt(np.mean(wanted**2))))


def decoded(machine: Executable, tokens: list[int], **more: object) -> np.ndarray:
    """Logits of all tokens, one by one."""
    found: list[np.ndarray] = []
    for place, token in enumerate(tokens):
        inputs = {"tokens": [[token]], "position": [place], **more}
        found += machine.run(inputs, entry="decode").outputs.values()
    return np.concatenate(found)[:, 0]


@pytest.mark.parametrize("name", [pytest.param("t5", marks=pytest.mark.slow), "t5-gated", "t5-narrow"])
def test_t5(name: str) -> None:
    """A text as long as the program's, then a shorter one: what the longer one left in the caches is not seen."""
    model = build(name)
    machine = pimc.compile(model, max_seq=MAX_SEQ, shapes={"source": (1, SOURCE)})
    for length in (SOURCE, 7):
        source = np.random.default_rng(length).integers(3, VOCAB, (1, SOURCE))
        more = {"length": [length]}
        (hidden,) = machine.run({"source": source, **more}, entry="encode").outputs.values()
        text = torch.tensor(source[:, :length])
        with torch.no_grad():
            close(hidden[:, :length], model.encoder(input_ids=text).last_hidden_state)
            wanted = model(input_ids=text, decoder_input_ids=torch.tensor([TOKENS])).logits[0]
        close(decoded(machine, TOKENS, **more), wanted)


def test_whisper() -> None:
    model = build("whisper")
    machine = pimc.compile(model, max_seq=MAX_SEQ)
    for seed in range(2):
        features = torch.randn(1, 10, 60, generator=torch.Generator().manual_seed(seed))
        (hidden,) = machine.run({"source": features.numpy()}, entry="encode").outputs.values()
        with torch.no_grad():
            close(hidden, model.get_encoder()(features).last_hidden_state)
            wanted = model(input_features=features, decoder_input_ids=torch.tensor([TOKENS])).logits[0]
        close(decoded(machine, TOKENS), wanted)


def folder_of(model: PreTrainedModel, path: Path) -> Path:
    """A folder with a tokenizer whose tokens are the words ``w0``, ``w1``, ..."""
    model.save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return path


def greedy(model: PreTrainedModel, words: list[int], count: int) -> list[int]:
    """The tokens that `transformers` makes of a text, one by one."""
    tokens = [0]
    for _ in range(count):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([words]), decoder_input_ids=torch.tensor([tokens])).logits
        tokens.append(int(logits[0, -1].argmax()))
    return tokens[1:]


def test_text(tmp_path: Path) -> None:
    """From a folder by way of a binary to text, as `transformers` generates it."""
    model = build("t5")
    folder = folder_of(model, tmp_path / "model")
    compiled = pimc.compile(folder, max_seq=MAX_SEQ, shapes={"source": (1, SOURCE)})
    compiled.save(tmp_path / "t5.pimx")
    machine = Executable(load_program(tmp_path / "t5.pimx"), compiled.target)
    for words in ([5, 9, 17, 60, 4], [30, 31]):
        found = machine.generate(" ".join(f"w{word}" for word in words), max_new_tokens=8)
        assert found.token_ids == greedy(model, words, len(found.token_ids))
        assert found.prompt_token_ids == words
        assert len(found.decode_cycles) == len(found.token_ids) - 1
    with pytest.raises(InputError, match=f"the prompt has {SOURCE + 1} tokens; the program was compiled for {SOURCE}"):
        machine.generate(" ".join(["w5"] * (SOURCE + 1)))


def test_every_type_that_folders_may_have_has_its_entries() -> None:
    assert set(KINDS) == set(ENCODER_DECODER_TYPES)


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="no input 'input_ids' whose shape is open"):
        pimc.compile(build("t5"), shapes={"input_ids": (1, 8)})
    with pytest.raises(UsageError, match="source of shape 2,8"):
        pimc.compile(build("t5"), shapes={"source": (2, 8)})
    with pytest.raises(InputError, match="max_seq is 25, the model has 24 positions"):
        pimc.compile(build("whisper"), max_seq=25)
