"""Damaged models: whatever is wrong with a node, the model is imported, or refused with an error for people."""

from __future__ import annotations

import random

import onnx
import pytest
from conformance.onnx_cases import OnnxCase, load_cases
from onnx_damage import DAMAGES, Damage, dense, store_inputs
from onnx_decoders import grouped_query_decoder

from pimc.diagnostics import InputError
from pimc.frontends.onnx import import_onnx

MODULES = (
    "attention", "averagepool", "concat", "einsum", "gather", "if_", "layernormalization", "loop", "lstm", "matmul",
    "onehot", "pad", "reshape", "resize", "scatternd", "slice", "split", "topk",
)  # fmt: skip
MUTANTS = 250


@pytest.fixture(scope="module")
def cases() -> list[OnnxCase]:
    return load_cases(MODULES)


def is_refused(model: onnx.ModelProto, name: str) -> bool:
    """Whether the model is refused; AssertionError for anything but an error for people."""
    try:
        import_onnx(model, max_seq=32, prefill_chunk=4)
    except InputError:
        return True
    except Exception as error:
        raise AssertionError(f"{name}: {error!r}\n{onnx.printer.to_text(model)}") from error
    return False


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_models(damage: Damage, cases: list[OnnxCase]) -> None:
    rng = random.Random(damage.__name__)
    refused = 0
    for _ in range(MUTANTS):
        case = rng.choice(cases)
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        if rng.random() < 0.6 and dense(case):
            store_inputs(model, case, rng)
        damage(model, rng)
        refused += is_refused(model, case.name)
    assert 0 < refused < MUTANTS


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_decoders(damage: Damage) -> None:
    rng = random.Random(damage.__name__)
    whole = grouped_query_decoder(packed=False)
    refused = 0
    for _ in range(MUTANTS // 12):
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        damage(model, rng)
        refused += is_refused(model, "decoder")
    assert refused > 0
