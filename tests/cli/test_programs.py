"""``pimc run`` and ``pimc generate``, and ``Executable`` behind them, on a model that counts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from counting_model import CHUNK, END, MAX_SEQ, VOCABULARY

import pimc
from pimc.diagnostics import InputError, RunLimitError, UsageError
from pimc.isa.container import write_program
from pimc.isa.program import strip
from pimc.runtime import Executable


def decode_inputs(token: int) -> dict[str, np.ndarray]:
    return {"tokens": np.array([[token]], np.int32), "position": np.array([0], np.int32)}


# -- Executable


def test_run_by_name_and_in_order(counting: Executable) -> None:
    by_name = counting.run(decode_inputs(7), entry="decode")
    in_order = counting.run(np.array([[7]], np.int32), np.array([0], np.int32), entry="decode")
    assert list(by_name.outputs) == ["logits"]
    assert by_name.outputs["logits"].shape == (1, 1, VOCABULARY)
    assert by_name.outputs["logits"].argmax() == 8
    np.testing.assert_array_equal(by_name.outputs["logits"], in_order.outputs["logits"])
    assert by_name.cycles == in_order.cycles > 0


@pytest.mark.parametrize(
    ("inputs", "entry", "error", "message"),
    [
        ({"tokens": np.zeros((1, 1), np.int32)}, "decode", InputError, "lacks position"),
        ({**decode_inputs(0), "more": np.zeros(1)}, "decode", InputError, "does not know more"),
        ({**decode_inputs(0), "tokens": np.zeros((1, 2), np.int32)}, "decode", InputError, "shape"),
        ({**decode_inputs(0), "tokens": [[0], [1, 2]]}, "decode", InputError, "'tokens' is no array of numbers"),
        ({**decode_inputs(0), "tokens": [["a"]]}, "decode", InputError, "'tokens' holds <U1, the model takes i32"),
        ({**decode_inputs(0), "position": 1.0}, "decode", InputError, "'position' holds float64"),
        (decode_inputs(500000), "decode", InputError, "input 'tokens' is 500000; the program takes 0 to 256"),
        (decode_inputs(-3), "decode", InputError, "input 'tokens' is -3; the program takes 0 to 256"),
        ({"tokens": [[1]], "position": 99999}, "decode", InputError, "input 'position' is 99999; .* takes 0 to 11"),
        ({"tokens": [[1]], "position": 2**40}, "decode", InputError, "'position' is 1099511627776; .* takes 0 to 11"),
        (
            {"tokens": [[1, 2, 3, 400]], "position": 0, "length": 1},
            "prefill",
            InputError,
            r"input 'tokens' is 400 at \[0, 3\]; the program takes 0 to 256",
        ),
        ({"tokens": [[1, 2, 3, 4]], "position": 9, "length": 1}, "prefill", InputError, "'position' is 9; .* 0 to 8"),
        ({"tokens": [[1, 2, 3, 4]], "position": 0, "length": 0}, "prefill", InputError, "'length' is 0; .* 1 to 4"),
        (decode_inputs(0), "encode", InputError, "no entry point 'encode'"),
        (decode_inputs(0), None, UsageError, "several entry points"),
    ],
)
def test_wrong_inputs(
    counting: Executable, inputs: dict[str, np.ndarray], entry: str | None, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        counting.run(inputs, entry=entry)


@pytest.mark.parametrize("position", [3, np.int64(3), np.array(3), [3], np.array([3], np.uint8), True])
def test_a_number_or_a_list_is_an_input(counting: Executable, position: object) -> None:
    assert counting.run({"tokens": [[7]], "position": position}, entry="decode").outputs["logits"].argmax() == 8
    assert counting.run([[7]], position, entry="decode").outputs["logits"].argmax() == 8


def test_a_binary_without_ranges_loads(counting: Executable, tmp_path: Path) -> None:
    """As binaries of earlier versions are: then only the types bound the inputs."""
    entries = {
        name: dataclasses.replace(entry, inputs=tuple(dataclasses.replace(p, range=None) for p in entry.inputs))
        for name, entry in counting.program.entries.items()
    }
    write_program(tmp_path / "old.pimx", dataclasses.replace(counting.program, entries=entries))
    old = pimc.load(tmp_path / "old.pimx")
    assert old.run({"tokens": [[7]], "position": 99}, entry="decode").outputs["logits"].argmax() == 8
    with pytest.raises(InputError, match="'tokens' does not fit the hardware's 32-bit integers"):
        old.run({"tokens": [[2**40]], "position": 0}, entry="decode")


def test_generate_counts_to_the_end(counting: Executable) -> None:
    pieces: list[str] = []
    result = counting.generate("xa", max_new_tokens=3, on_text=pieces.append)
    assert (result.text, "".join(pieces)) == ("bcd", "bcd")
    assert result.finish == "length"
    assert result.prompt_token_ids == list(b"xa")
    assert result.token_ids == list(b"bcd")
    assert len(result.decode_cycles) == 2
    assert result.prefill_cycles > 0
    assert sum(result.shares.values()) > 0


def test_generate_tells_of_the_prompt_and_has_limits(counting: Executable) -> None:
    told: list[tuple[int, int]] = []
    prompt = "A" * CHUNK + "p"
    result = counting.generate(prompt, max_new_tokens=3, on_prefill=lambda *done: told.append(done))
    assert told == [(CHUNK, CHUNK + 1), (CHUNK + 1, CHUNK + 1)]
    cycles = result.prefill_cycles + sum(result.decode_cycles)
    assert counting.generate(prompt, max_new_tokens=3, max_cycles=cycles).token_ids == result.token_ids
    with pytest.raises(RunLimitError, match=f"at the limit of {cycles - 1} cycles"):
        counting.generate(prompt, max_new_tokens=3, max_cycles=cycles - 1)
    with pytest.raises(UsageError, match="timeout"):
        counting.generate(prompt, timeout=-1.0)


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, MAX_SEQ])
def test_prompts_of_any_number_of_chunks(counting: Executable, length: int) -> None:
    result = counting.generate("A" * (length - 1) + "p", max_new_tokens=1)
    assert result.text == "q"
    one = counting.generate("p", max_new_tokens=1).prefill_cycles
    assert result.prefill_cycles == one * -(-length // CHUNK)


def test_a_full_cache_ends(counting: Executable) -> None:
    result = counting.generate("abc", max_new_tokens=99)
    assert result.finish == "max_seq"
    assert len(result.prompt_token_ids) + len(result.token_ids) == MAX_SEQ + 1


def test_an_end_token_ends(counting: Executable) -> None:
    model = {**(counting.program.model or {}), "eos_ids": [END, ord("e")]}
    ending = Executable(dataclasses.replace(counting.program, model=model), counting.target)
    result = ending.generate("a", max_new_tokens=99)
    assert result.finish == "eos"
    assert result.token_ids == list(b"bcde")


def test_too_long_and_empty_prompts(counting: Executable) -> None:
    with pytest.raises(InputError, match=f"13 tokens; the program was compiled for {MAX_SEQ}") as caught:
        counting.generate("x" * (MAX_SEQ + 1))
    assert "--max-seq" in (caught.value.hint or "")
    with pytest.raises(InputError, match="empty"):
        counting.generate("")


def test_chat_uses_the_template(counting: Executable) -> None:
    assert counting.generate("hi", chat=True, max_new_tokens=1).text == chr(ord("!") + 1)


def test_a_program_without_text_runs_but_does_not_generate(tmp_path: Path, counting: Executable) -> None:
    path = tmp_path / "bare.pimx"
    write_program(path, strip(counting.program))
    bare = pimc.load(path)
    assert bare.run(decode_inputs(3), entry="decode").outputs["logits"].argmax() == 4
    with pytest.raises(InputError, match="no tokenizer"):
        bare.generate("x")


def test_load_with_other_hardware(binary: Path) -> None:
    slow = pimc.load(binary, overrides=["clock.core_period_fs=2000000"])
    assert slow.clock_ghz == 0.5
    assert pimc.load(binary).clock_ghz == 1.0


# -- command line


def test_generate_prints_text(pimc_cli: Callable, binary: Path) -> None:
    result = pimc_cli("generate", binary, "--prompt", "a", "--max-new-tokens", "4")
    assert (result.code, result.out, result.err) == (0, "bcde\n", "")


def test_generate_json_is_all_there_is_on_stdout(pimc_cli: Callable, binary: Path) -> None:
    result = pimc_cli("generate", binary, "--prompt", "a", "--max-new-tokens", "4", "--json")
    content = json.loads(result.out)
    assert content["text"] == "bcde"
    assert content["token_ids"] == list(b"bcde")
    assert content["prompt_token_ids"] == list(b"a")
    assert content["clock_ghz"] == 1.0
    assert len(content["decode_cycles"]) == 3
    assert isinstance(content["prefill_cycles"], int)
    assert content["wall_s"] > 0
    assert END not in content["token_ids"]


def test_generate_too_long(pimc_cli: Callable, binary: Path) -> None:
    result = pimc_cli("generate", binary, "--prompt", "x" * 99)
    assert (result.code, result.out) == (1, "")
    assert "99 tokens" in result.error_lines[0]
    assert "--max-seq" in result.error_lines[1]


def test_run_writes_outputs(pimc_cli: Callable, binary: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **decode_inputs(5))
    words = ("run", binary, "--entry", "decode", "--inputs", tmp_path / "in.npz")
    result = pimc_cli(*words, "--outputs", tmp_path / "out.npz", "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["outputs"] == {"logits": {"shape": [1, 1, VOCABULARY], "dtype": "float16"}}
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["logits"].argmax() == 6
    timing = json.loads(pimc_cli(*words, "--json", "--timing-only").out)
    assert (timing["cycles"], timing["outputs"]) == (content["cycles"], {})


def test_timing_only_has_no_outputs_to_write(pimc_cli: Callable, binary: Path, tmp_path: Path) -> None:
    result = pimc_cli("run", binary, "--entry", "decode", "--timing-only", "--outputs", tmp_path / "none.npz")
    assert (result.code, result.out) == (2, "")
    assert "--timing-only computes no outputs" in result.error_lines[0]
    assert not (tmp_path / "none.npz").exists()


def test_run_needs_an_entry(pimc_cli: Callable, binary: Path) -> None:
    result = pimc_cli("run", binary)
    assert result.code == 2
    assert "prefill, decode" in result.error_lines[1] or "decode, prefill" in result.error_lines[1]


def test_run_refuses_pickles(pimc_cli: Callable, binary: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", tokens=np.array([object()], dtype=object))
    result = pimc_cli("run", binary, "--entry", "decode", "--inputs", tmp_path / "in.npz")
    assert result.code == 1
    assert "in.npz" in result.error_lines[0]


@pytest.mark.parametrize("command", ["run", "generate", "disasm"])
@pytest.mark.parametrize("keep", [0, 7, 100, 3000, -1])
def test_truncated_binaries(pimc_cli: Callable, binary: Path, tmp_path: Path, command: str, keep: int) -> None:
    path = tmp_path / "cut.pimx"
    path.write_bytes(binary.read_bytes()[:keep])
    words = {"run": ("--entry", "decode"), "generate": ("--prompt", "x"), "disasm": ()}[command]
    result = pimc_cli(command, path, *words)
    assert (result.code, result.out) == (1, "")
    assert "cut.pimx" in result.error_lines[0]
    assert len(result.error_lines) <= 2


def test_same_program_same_bytes(counting: Executable, binary: Path, tmp_path: Path) -> None:
    counting.save(tmp_path / "again.pimx")
    assert (tmp_path / "again.pimx").read_bytes() == binary.read_bytes()


def test_disasm_and_asm_round_trip(pimc_cli: Callable, binary: Path, tmp_path: Path) -> None:
    text, again = tmp_path / "program.s", tmp_path / "again.pimx"
    assert pimc_cli("disasm", binary, "-o", text).code == 0
    result = pimc_cli("asm", text, "-o", again)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert again.read_bytes() == binary.read_bytes()
    stream = pimc_cli("disasm", binary, "--stream", "decode/core/0").out
    assert "vfill.h" in stream
    assert pimc_cli("disasm", binary, "--stream", "decode/core/9").code == 2
