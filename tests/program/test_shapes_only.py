"""``pimc compile --shapes-only``: a binary without weights, which takes the time of one with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hf_models import FAMILIES, build

import pimc
from pimc.diagnostics import InputError
from pimc.frontends import import_model
from pimc.isa.container import load_program

CONFIG = {
    "model_type": "opt", "vocab_size": 100, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 128, "word_embed_proj_dim": 32,
}  # fmt: skip
LLAMA = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
BARE = {
    "opt": CONFIG,
    "llama": {"model_type": "llama", **LLAMA},
    "llama-bfloat16": {"model_type": "llama", "torch_dtype": "bfloat16", **LLAMA},
    "mistral": {"model_type": "mistral", "sliding_window": None, **LLAMA},
    "qwen2": {"model_type": "qwen2", **LLAMA},
    "gpt2": {"model_type": "gpt2", "vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "bert": {
        "model_type": "bert", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 64,
    },
}  # fmt: skip
#: In every run; the others are slow tests.
QUICK = ("opt", "llama", "bert")


def write(folder: Path, config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights."""
    folder = tmp_path_factory.mktemp("whole") / "opt"
    build(next(family for family in FAMILIES if family.name == "opt"), folder)
    return folder


@pytest.fixture(scope="module")
def bare(whole: Path) -> Path:
    """The same model without weights."""
    folder = whole.parent / "bare" / "opt"
    folder.mkdir(parents=True)
    shutil.copy(whole / "config.json", folder)
    return folder


def compiled(pimc_cli: Callable, source: Path, out: Path, *words: str) -> dict:
    result = pimc_cli("compile", source, "-o", out, "--max-seq", "32", "--prefill-chunk", "4", *words, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_the_same_program_and_the_same_time(pimc_cli: Callable, whole: Path, bare: Path, tmp_path: Path) -> None:
    with_weights, without = tmp_path / "whole.pimx", tmp_path / "bare.pimx"
    full, empty = compiled(pimc_cli, whole, with_weights), compiled(pimc_cli, bare, without, "--shapes-only")
    assert (full["shapes_only"], empty["shapes_only"]) == (False, True)
    assert full["image_bytes"] > empty["image_bytes"] == 0
    for key in ("entries", "code_bytes", "rows_per_bank"):
        assert empty[key] == full[key]
    one, other = load_program(with_weights), load_program(without)
    assert all((other.code[name] == words).all() for name, words in one.code.items())
    assert other.absent_images is not None
    assert (other.absent_images.channels, other.absent_images.rows) == (len(one.images), len(one.images[0]))
    for entry, position in (("decode", "20"), ("prefill", "8")):
        words = ("--entry", entry, "--timing-only", "--input", f"position={position}", "--json")
        timed = [
            json.loads(pimc_cli("run", binary, *words, *more).out)["cycles"]
            for binary, more in ((with_weights, ("--assume-cache", "32")), (without, ()))
        ]
        assert timed[0] == timed[1]


def test_sources_with_weights_can_leave_them_out(pimc_cli: Callable, whole: Path, tmp_path: Path) -> None:
    compiled(pimc_cli, whole, tmp_path / "a.pimx", "--shapes-only", "--dump-ir", str(tmp_path / "ir"))
    assert load_program(tmp_path / "a.pimx").absent_images is not None
    first = tmp_path / "ir" / "00-input.mlir"
    result = pimc_cli("compile", first, "-o", tmp_path / "b.pimx", "--shapes-only")
    assert result.code == 0, result.err
    one, other = load_program(tmp_path / "a.pimx"), load_program(tmp_path / "b.pimx")
    assert other.absent_images == one.absent_images
    assert all((other.code[name] == words).all() for name, words in one.code.items())


def test_what_needs_weights_is_refused(pimc_cli: Callable, bare: Path, tmp_path: Path) -> None:
    binary = tmp_path / "bare.pimx"
    compiled(pimc_cli, bare, binary, "--shapes-only")
    for words in (
        ("run", binary, "--entry", "decode", "--input", "tokens=1", "--input", "position=0"),
        ("generate", binary, "--prompt", "hello"),
        ("generate", binary, "--prompt", "hello", "--json"),
        ("chat", binary),
    ):
        result = pimc_cli(*words)
        assert result.code == 1
        assert result.out == ""
        assert result.error_lines == [
            "pimc: error: the program has no weights, as it was compiled with --shapes-only: it can only be timed",
            "  hint: time it with `pimc run --timing-only`, or compile the model without --shapes-only",
        ]
    exe = pimc.load(binary)
    with pytest.raises(InputError, match="has no weights"):
        exe([[1]], [0], entry="decode")
    assert exe.run([[1]], [0], entry="decode", timing_only=True).cycles > 0
    assert "weights: absent" in pimc_cli("info", binary).out
    assert json.loads(pimc_cli("info", binary, "--json").out)["shapes_only"] is True


def test_assembly_keeps_it(pimc_cli: Callable, bare: Path, tmp_path: Path) -> None:
    compiled(pimc_cli, bare, tmp_path / "a.pimx", "--shapes-only")
    text = pimc_cli("disasm", tmp_path / "a.pimx").out
    assert "\n.absent channels 128 rows " in text
    (tmp_path / "a.pasm").write_text(text)
    assert pimc_cli("asm", tmp_path / "a.pasm", "-o", tmp_path / "b.pimx").code == 0
    assert (tmp_path / "b.pimx").read_bytes() == (tmp_path / "a.pimx").read_bytes()


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BARE]
)
def test_a_configuration_is_enough(pimc_cli: Callable, tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "model", BARE[name])
    report = compiled(pimc_cli, folder, tmp_path / "m.pimx", "--shapes-only")
    assert report["shapes_only"]
    entry = "main" if name == "bert" else "decode"
    result = pimc_cli("run", tmp_path / "m.pimx", "--entry", entry, "--timing-only", "--json")
    assert json.loads(result.out)["cycles"] > 0


def test_the_module_is_the_one_with_weights(whole: Path) -> None:
    full = import_model(whole, max_seq=32, prefill_chunk=4)
    empty = import_model(whole, max_seq=32, prefill_chunk=4, shapes_only=True)
    assert str(empty.module) == str(full.module)
    for name in full.weights.names():
        assert empty.weights.shape(name) == full.weights.shape(name)
        assert not empty.weights.has_values(name)


def test_a_model_on_the_meta_device() -> None:
    import torch
    from transformers import AutoModelForCausalLM, OPTConfig

    config = {key: value for key, value in CONFIG.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(OPTConfig(**config))
    exe = pimc.compile(model, max_seq=32, prefill_chunk=4, shapes_only=True)
    assert exe.run([[1]], [20], entry="decode", timing_only=True).cycles > 0


def test_instructions_do_not_depend_on_the_longest_sequence(pimc_cli: Callable, bare: Path, tmp_path: Path) -> None:
    found = []
    for length in (32, 200, 256):
        result = pimc_cli("compile", bare, "--shapes-only", "-o", tmp_path / "m.pimx", "--max-seq", length, "--json")
        found.append(json.loads(result.out)["entries"])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "config.json cannot be read"),
        ("[1]", "config.json holds no JSON object"),
        ({}, "model type 'None' is not supported"),
        ({**CONFIG, "model_type": "whale"}, "model type 'whale' is not supported"),
        ({**CONFIG, "model_type": ["opt"]}, "is not supported"),
        ({**CONFIG, "num_attention_heads": 5}, "the configuration makes no model"),
        ({**CONFIG, "num_attention_heads": 0}, "the configuration makes no model"),
        ({**CONFIG, "hidden_size": "wide"}, "the configuration makes no model"),
        ({**CONFIG, "hidden_size": -8}, "the configuration makes no model"),
        ({**CONFIG, "vocab_size": 1 << 60}, "the configuration makes no model"),
        ({**CONFIG, "activation_function": "magic"}, "the configuration makes no model"),
        ({**CONFIG, "num_hidden_layers": None}, "the configuration makes no model"),
        ({**CONFIG, "max_position_embeddings": 8}, "the model has 8 positions"),
    ],
)
def test_bad_configurations(pimc_cli: Callable, tmp_path: Path, config: object, message: str) -> None:
    folder = write(tmp_path / "model", config)
    result = pimc_cli("compile", folder, "--shapes-only", "-o", tmp_path / "m.pimx", "--max-seq", "32")
    assert result.code == 1, result.err
    assert message in result.error_lines[0]
    assert "Traceback" not in result.err
    assert not (tmp_path / "m.pimx").exists()


def test_without_the_option_the_hint_names_it(pimc_cli: Callable, bare: Path, tmp_path: Path) -> None:
    result = pimc_cli("compile", bare, "-o", tmp_path / "m.pimx", "--max-seq", "32")
    assert result.code == 1
    assert "the folder has no weights" in result.error_lines[0]
    assert "--shapes-only" in result.error_lines[1]


def test_nothing_at_all(pimc_cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = pimc_cli("compile", tmp_path / "empty", "--shapes-only", "-o", tmp_path / "m.pimx")
    assert result.code == 1
    assert "there is no config.json" in result.error_lines[0]
