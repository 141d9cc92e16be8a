"""ONNX models: node tests of the ONNX project, damaged as models and as bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import onnx
from conformance.onnx_cases import load_cases
from onnx_damage import DAMAGES, dense, store_inputs
from onnx_decoders import grouped_query_decoder

from attack.case import Case, Kind
from attack.damage import damage_bytes

MODULES = (
    "attention", "averagepool", "cast", "concat", "constantofshape", "conv", "einsum", "expand", "gather",
    "gemm", "gru", "if_", "layernormalization", "loop", "lstm", "matmul", "onehot", "pad", "quantizelinear",
    "reshape", "resize", "rnn", "scan", "scatternd", "slice", "split", "tile", "topk", "transpose", "unsqueeze",
    "where",
)  # fmt: skip
_BIGGEST = 1 << 16


def _models() -> list[bytes]:
    """Small models, with the inputs that shapes depend on in half of them as tensors of their own."""
    rng = random.Random(0)
    found = []
    for case in load_cases(MODULES):
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        if dense(case) and rng.random() < 0.7:
            store_inputs(model, case, rng)
        if len(data := model.SerializeToString(deterministic=True)) < _BIGGEST:
            found.append(data)
    found.append(grouped_query_decoder(packed=False).SerializeToString(deterministic=True))
    return found


def _onnx(rng: random.Random, seeds: Sequence[bytes]) -> Case:
    data = rng.choice(seeds)
    if rng.random() < 0.25:
        data = damage_bytes(rng, data)
    else:
        model = onnx.ModelProto.FromString(data)
        for _ in range(rng.choice((1, 1, 2))):
            if model.graph.node:
                rng.choice(DAMAGES)(model, rng)
        data = model.SerializeToString()
    options = ["--max-seq", "32", "--prefill-chunk", "4"]
    action = ["-o", "out.pimx"] if rng.random() < 0.25 else ["--explain", "*"]
    return Case("onnx", {"x.onnx": data}, [["compile", "x.onnx", *options, *action]])


KINDS = (Kind("onnx", _models, _onnx, share=3),)
