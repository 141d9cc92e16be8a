"""Decoders exported to ONNX with a cache: prefill and decode on the simulator against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_decoders import export_onnx, grouped_query_decoder

import pimc

BOUND = 3e-3
"""Of logits of magnitude 1: those of the same models by the PyTorch route are within half of it."""


@pytest.fixture(scope="module")
def model() -> object:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, head_dim=16,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def check_logits(executable: pimc.Executable, ids: NDArray[np.int32], wanted: NDArray[np.float32]) -> None:
    """Two chunks of four tokens and three decoded ones, against logits of all positions."""
    for start in (0, 4):
        inputs = {"tokens": ids[:, start : start + 4], "position": np.array([start]), "length": np.array([4])}
        logits = executable.run(inputs, entry="prefill").outputs["logits"]
        np.testing.assert_allclose(logits.reshape(-1), wanted[start + 3], atol=BOUND)
    for position in range(8, 11):
        inputs = {"tokens": ids[:, position : position + 1], "position": np.array([position])}
        logits = executable.run(inputs, entry="decode").outputs["logits"]
        np.testing.assert_allclose(logits.reshape(-1), wanted[position], atol=BOUND)


@pytest.fixture(scope="module")
def path(model: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a file of opset 23."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path, opset=23)
    return path


@pytest.mark.slow
def test_prefill_and_decode_of_an_earlier_opset(model: object, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(model, path, opset=20)
    test_prefill_and_decode(model, path)


def test_prefill_and_decode(model: object, path: Path) -> None:
    import torch

    executable = pimc.compile(path, max_seq=32, prefill_chunk=4)
    assert set(executable.entries) == {"prefill", "decode"}
    ids = (np.arange(11)[None] * 7 % 96).astype(np.int32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids).long()).logits[0].numpy()  # type: ignore[operator]
    check_logits(executable, ids, wanted)


def test_layers_are_one_loop(path: Path) -> None:
    """The exporter's names of weights say nothing of layers; the layers are outlined all the same."""
    from xdsl.dialects import func

    from pimc.driver.compile import Options, plan, run_passes
    from pimc.frontends.onnx import import_onnx

    imported = import_onnx(path, max_seq=32, prefill_chunk=4)
    run_passes(imported, plan(Options(pipeline="canonicalize,raise,legalize,outline")))
    names = [op.sym_name.data for op in imported.module.ops if isinstance(op, func.FuncOp)]
    assert names == ["prefill_layer", "prefill", "decode_layer", "decode"]


def test_sliding_window(tmp_path: Path) -> None:
    """The mask of a window, a constant once the length of the past is known, follows the position."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, head_dim=16, sliding_window=4,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, opset=23)
    executable = pimc.compile(path, max_seq=32, prefill_chunk=4)
    ids = (np.arange(11)[None] * 7 % 96).astype(np.int32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids).long()).logits[0].numpy()
        other = ids.copy()
        other[:, 0] = 50  # outside of the windows of positions from 4 on
        assert np.abs(model(torch.from_numpy(other[:, :4]).long()).logits[0, 3].numpy() - wanted[3]).max() > 4 * BOUND
    check_logits(executable, ids, wanted)


@pytest.mark.parametrize(
    ("packed", "attributes"), [(False, {}), (True, {}), (False, {"local_window_size": 3, "softcap": 0.5})]
)
def test_grouped_query_attention(packed: bool, attributes: dict[str, int | float]) -> None:
    """ONNX Runtime's own operator, against ONNX Runtime."""
    import onnxruntime

    proto = grouped_query_decoder(packed=packed, **attributes)
    executable = pimc.compile(proto, max_seq=32, prefill_chunk=4)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = (np.arange(7)[None] * 5 % 96).astype(np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones((1, 7), np.int64)}
    feeds |= {f"past_key_values.{i}.{k}": np.zeros((1, 2, 0, 16), np.float32) for i in (0, 1) for k in ("key", "value")}
    wanted = session.run(["logits"], feeds)[0][0]
    first = {"tokens": ids[:, :4].astype(np.int32), "position": np.array([0]), "length": np.array([4])}
    logits = executable.run(first, entry="prefill").outputs["logits"]
    np.testing.assert_allclose(logits.reshape(-1), wanted[3], atol=4 * BOUND)
    for position in range(4, 7):
        inputs = {"tokens": ids[:, position : position + 1].astype(np.int32), "position": np.array([position])}
        logits = executable.run(inputs, entry="decode").outputs["logits"]
        np.testing.assert_allclose(logits.reshape(-1), wanted[position], atol=4 * BOUND)
