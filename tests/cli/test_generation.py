"""Sampling, conversations, several prompts: ``pimc generate`` and ``pimc chat`` on a model that counts."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from counting_model import CHUNK, MAX_SEQ

import pimc
from pimc.diagnostics import InputError, UsageError
from pimc.runtime import Executable
from pimc.sampling import Sampler, Sampling

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3]))


def shares(sampling: Sampling, draws: int = 20_000) -> np.ndarray:
    """How often each token of ``LOGITS`` is chosen."""
    sampler = Sampler(sampling)
    return np.bincount([sampler.choose(LOGITS) for _ in range(draws)], minlength=4) / draws


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0, 1, 0, 0]),
        (Sampling(temperature=0.0, top_k=3), [0, 1, 0, 0]),
        (Sampling(temperature=1.0), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(seed=3), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(temperature=0.5), np.array([1, 16, 4, 9]) / 30),
        (Sampling(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(top_k=1), [0, 1, 0, 0]),
        (Sampling(top_p=0.65), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(top_p=0.3), [0, 1, 0, 0]),
        (Sampling(top_k=3, top_p=0.99), [0, 4 / 9, 2 / 9, 3 / 9]),
    ],
)
def test_tokens_come_by_their_probability(sampling: Sampling, expected: list[float]) -> None:
    np.testing.assert_allclose(shares(sampling, 1 if sampling.greedy else 20_000), expected, atol=0.015)


def test_the_same_seed_gives_the_same_tokens() -> None:
    def tokens(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed))
        return [sampler.choose(LOGITS) for _ in range(50)]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


@pytest.mark.parametrize("logits", [[np.nan, 1.0], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_logits_without_probabilities(logits: list[float]) -> None:
    assert Sampler(Sampling(temperature=1.0)).choose(np.array(logits)) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"seed": -1}],
)
def test_figures_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_generation_with_a_seed(pimc_cli: Callable, counting: Executable, binary: Path) -> None:
    """The counting model is sure of one token in e: a temperature of 1 gives others as well."""
    sampling = pimc.Sampling(temperature=1.0, seed=7)
    made = counting.generate("a", max_new_tokens=6, sampling=sampling)
    assert made.token_ids == counting.generate("a", max_new_tokens=6, sampling=sampling).token_ids
    assert made.token_ids != counting.generate("a", max_new_tokens=6).token_ids
    words = ("generate", binary, "--prompt", "a", "--max-new-tokens", "6", "--json")
    result = pimc_cli(*words, "--temperature", "1", "--seed", "7")
    assert json.loads(result.out)["token_ids"] == made.token_ids
    assert json.loads(pimc_cli(*words, "--temperature", "0").out)["text"] == "bcdefg"
    assert json.loads(pimc_cli(*words, "--top-k", "1").out)["text"] == "bcdefg"
    wrong = pimc_cli(*words, "--top-p", "2")
    assert (wrong.code, wrong.out) == (2, "")
    assert "top_p is 2.0" in wrong.error_lines[0]


def test_several_prompts(pimc_cli: Callable, binary: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("k\n\nx\n")
    words = ("generate", binary, "--prompt", "a", "--prompts-file", tmp_path / "prompts.txt", "--max-new-tokens", "2")
    assert pimc_cli(*words).out == "> a\nbc\n> k\nlm\n> x\nyz\n"
    answers = json.loads(pimc_cli(*words, "--json").out)["answers"]
    assert [item["text"] for item in answers] == ["bc", "lm", "yz"]
    (tmp_path / "prompts.txt").write_text("\n")
    empty = pimc_cli("generate", binary, "--prompts-file", tmp_path / "prompts.txt")
    assert empty.code == 1
    assert "holds no prompts" in empty.error_lines[0]


def test_a_second_turn_reads_only_what_is_new(counting: Executable) -> None:
    """The template puts ``!`` behind each message: ``a!`` is answered by what follows ``!``."""
    chunk = counting.generate("p", max_new_tokens=1).prefill_cycles
    talk = counting.conversation()
    assert talk.say("a", max_new_tokens=2).text == '"#'
    second = talk.say("b", max_new_tokens=1)
    assert bytes(second.prompt_token_ids) == b'a!"#!b!'
    assert second.text == '"'
    assert second.prefill_cycles == chunk  # 4 of 7 tokens; from the start it would be two chunks
    assert [message["content"] for message in talk.messages] == ["a", '"#', "b", '"']
    counting.generate("zz", max_new_tokens=1)  # overwrites the caches
    talk.messages = talk.messages[:2]
    assert talk.say("b", max_new_tokens=1).prefill_cycles == 2 * chunk
    talk.reset()
    assert talk.say("a", max_new_tokens=1).prompt_token_ids == list(b"a!")


def test_the_end_of_the_cache(counting: Executable) -> None:
    """Where a whole chunk does not fit, single tokens go through decode; behind the end is an error."""
    talk = counting.conversation()
    talk.say("abcd", max_new_tokens=1)
    made = talk.say("efg", max_new_tokens=9)
    assert (len(made.prompt_token_ids), made.finish) == (MAX_SEQ - 1, "max_seq")
    assert made.text == '"#'
    before = list(talk.messages)
    with pytest.raises(InputError, match=f"tokens; the program was compiled for {MAX_SEQ}"):
        talk.say("h")
    assert talk.messages == before
    assert MAX_SEQ % CHUNK == 0


def test_a_system_message(counting: Executable) -> None:
    talk = counting.conversation(system="s")
    assert talk.say("a", max_new_tokens=1).prompt_token_ids == list(b"s!a!")


def test_chat_on_a_pipe(pimc_cli: Callable, binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n\nb\n/reset\nc\n/exit\nd\n"))
    result = pimc_cli("chat", binary, "--max-new-tokens", "1")
    assert (result.code, result.out, result.err) == (0, '"\n"\n"\n', "")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a"))
    assert pimc_cli("chat", binary, "--max-new-tokens", "3").out == '"#$\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO("too long for the cache\n"))
    full = pimc_cli("chat", binary)
    assert full.code == 1
    assert "--max-seq" in full.error_lines[1]
