"""Checkpoints of folders: forms, names, damage; and that what is read is what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_models import FAMILIES, build
from safetensors.torch import load_file, save_file

from pimc.diagnostics import InputError
from pimc.frontends import import_model
from pimc.frontends.model import ImportedModel

State = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """OPT, whose head is tied to its embedding."""
    build(next(family for family in FAMILIES if family.name == "opt"), tmp_path / "opt")
    return tmp_path / "opt"


def imported(folder: Path) -> ImportedModel:
    return import_model(folder, max_seq=16, prefill_chunk=4)


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(path)).items()}, path)


def sharded(state: State, folder: Path) -> None:
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


FORMS: dict[str, Callable[[State, Path], object]] = {
    "safetensors": lambda state, folder: save_file(state, folder / "model.safetensors"),
    "shards": sharded,
    "half": lambda state, folder: save_file({n: v.half() for n, v in state.items()}, folder / "model.safetensors"),
    "double": lambda state, folder: save_file({n: v.double() for n, v in state.items()}, folder / "model.safetensors"),
    "pytorch": lambda state, folder: torch.save(state, folder / "pytorch_model.bin"),
    "pytorch of old": lambda state, folder: torch.save(
        state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False
    ),
    "without its head": lambda state, folder: save_file(
        {name.removeprefix("model."): value for name, value in state.items()}, folder / "model.safetensors"
    ),
    "both names of a tied weight": lambda state, folder: save_file(
        state | {"lm_head.weight": state["model.decoder.embed_tokens.weight"].clone()}, folder / "model.safetensors"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_hold_the_same(folder: Path, form: str) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    FORMS[form](state, folder)
    weights = imported(folder).weights
    assert set(weights.names()) == {name for name in state if name != "lm_head.weight"}
    for name in weights.names():
        assert weights.is_deferred(name)
        np.testing.assert_array_equal(weights[name], state[name].numpy())


def test_bfloat16_is_read_exactly(folder: Path) -> None:
    rewrite(folder, lambda state: {name: value.bfloat16() for name, value in state.items()})
    state = load_file(folder / "model.safetensors")
    weights = imported(folder).weights
    name = "model.decoder.layers.1.fc1.weight"
    np.testing.assert_array_equal(weights[name], state[name].float().numpy())


def _without(name: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("model.decoder.layers.1.fc1.bias"), "lacks 1 weight.*'model.decoder.layers.1.fc1.bias'"),
        (
            lambda s: s | {"model.decoder.layers.0.fc1.bias": torch.zeros(3)},
            r"must have the shape \(128,\) and has \(3,\)",
        ),
        (lambda s: s | {"lm_head.weight": torch.ones(200, 64)}, "ties .* and the checkpoint has other values"),
        (lambda s: s | {"model.decoder.layers.0.fc1.bias": torch.zeros(128, dtype=torch.int32)}, "of type I32"),
    ],
)
def test_wrong_checkpoints(folder: Path, change: Callable[[State], State], message: str) -> None:
    rewrite(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        imported(folder)
    assert str(folder) in str(caught.value)


def test_damaged_folders(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(InputError, match="is no safetensors file"):
        imported(folder)
    (folder / "model.safetensors").unlink()
    sharded(state, folder)
    (folder / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks its part 'b\.safetensors'"):
        imported(folder)
    index = folder / "model.safetensors.index.json"
    for text, message in (
        ("{", "the index of the checkpoint cannot be read"),
        ("{}", "the index of the checkpoint cannot be read"),
        ('{"weight_map": {"x": "../b.safetensors"}}', "which is no file beside it"),
    ):
        index.write_text(text)
        with pytest.raises(InputError, match=message):
            imported(folder)
    index.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(InputError, match="the model cannot be loaded"):
        imported(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(InputError, match="the checkpoint is quantised"):
        imported(folder)


def test_values_beyond_fp16_are_found_when_they_are_read(folder: Path) -> None:
    def spoil(state: State) -> State:
        state["model.decoder.layers.1.fc1.weight"][3, 4] = 1e6
        return state

    rewrite(folder, spoil)
    weights = imported(folder).weights
    assert weights["model.decoder.layers.0.fc1.weight"].shape == (128, 64)
    with pytest.raises(InputError, match=r"'model.decoder.layers.1.fc1.weight' does not fit fp16: it holds 1e\+06"):
        weights["model.decoder.layers.1.fc1.weight[0:8]"]
