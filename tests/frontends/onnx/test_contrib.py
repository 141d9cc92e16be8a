"""Operators of ONNX Runtime, compared with ONNX Runtime."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_runtime
import pytest

RNG = np.random.default_rng(3)
compare = partial(onnx_runtime.compare, domain=onnx_runtime.MICROSOFT)


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def test_skip_layer_normalization() -> None:
    x, skip, gamma, beta, bias = floats(2, 3, 8), floats(2, 3, 8), floats(8), floats(8), floats(8)
    compare("SkipLayerNormalization", [x, skip, gamma, beta, bias], 4, wanted=(0, 3), epsilon=1e-5)
    compare("SkipLayerNormalization", [x, skip, gamma], 1, epsilon=1e-5)
    compare("SkipSimplifiedLayerNormalization", [x, skip, gamma, bias], 4, wanted=(0, 3), epsilon=1e-5)


@pytest.mark.parametrize("op", ["Gelu", "QuickGelu", "FastGelu"])
def test_gelu(op: str) -> None:
    compare(op, [floats(2, 3, 8)])


def test_gelu_of_a_sum() -> None:
    compare("BiasGelu", [floats(2, 3, 8), floats(8)])
    compare("FastGelu", [floats(2, 3, 8), floats(8)])


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("by_head", [False, True])
def test_rotary_embedding(interleaved: int, by_head: bool) -> None:
    x = floats(2, 3, 4, 8) if by_head else floats(2, 4, 3 * 8)
    angles = RNG.uniform(0, 6, (16, 4))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    for positions in (np.array([5]), RNG.integers(0, 16, (2, 4))):
        compare("RotaryEmbedding", [x, positions.astype(np.int64), cos, sin], interleaved=interleaved)


def test_multi_head_attention() -> None:
    q, k, v = floats(2, 3, 8), floats(2, 5, 8), floats(2, 5, 12)
    compare("MultiHeadAttention", [q, k, v], num_heads=2)
    compare("MultiHeadAttention", [q, k, v, floats(28)], num_heads=2, scale=0.3)
    lengths = np.array([3, 5], np.int32)
    compare("MultiHeadAttention", [q, k, v, None, lengths], num_heads=2)
    kept = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], np.int32)
    compare("MultiHeadAttention", [q, k, v, None, kept, floats(1, 2, 3, 5)], num_heads=2)


def test_multi_head_attention_with_past() -> None:
    q, k, v, past_k, past_v = floats(1, 2, 8), floats(1, 2, 8), floats(1, 2, 8), floats(1, 2, 3, 4), floats(1, 2, 3, 4)
    compare("MultiHeadAttention", [q, k, v, None, None, None, past_k, past_v], 3, num_heads=2)
    compare("MultiHeadAttention", [q, k, v, None, None, None, past_k, past_v], 3, num_heads=2, unidirectional=1)


def test_fused_attention() -> None:
    x, weight, bias = floats(2, 4, 8), floats(8, 24), floats(24)
    compare("Attention", [x, weight, bias], num_heads=2, stored=(1, 2))
    compare("Attention", [x, weight, bias], num_heads=2, unidirectional=1, stored=(1, 2))
    compare("Attention", [x, weight, bias, np.array([2, 4], np.int32)], num_heads=2, stored=(1, 2))
    compare("Attention", [x, weight, bias, None, floats(2, 2, 2, 3, 4)], 2, num_heads=2, stored=(1, 2))


@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize("past", [0, 3])
def test_grouped_query_attention(rotary: int, past: int) -> None:
    tokens = 1 if past else 4
    q, k, v = floats(1, tokens, 4 * 16), floats(1, tokens, 2 * 16), floats(1, tokens, 2 * 16)
    caches = [floats(1, 2, past, 16), floats(1, 2, past, 16)]
    angles = RNG.uniform(0, 6, (32, 8))
    tables = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)] if rotary else []
    lengths = [np.array([past + tokens - 1], np.int32), np.array(past + tokens, np.int32)]
    run = partial(compare, "GroupQueryAttention", outputs=3, num_heads=4, kv_num_heads=2, do_rotary=rotary)
    run([q, k, v, *caches, *lengths, *tables])
    run([q, k, v, *caches, *lengths, *tables], local_window_size=2)
    packed = np.concatenate([q, k, v], axis=-1)
    run([packed, None, None, *caches, *lengths, *tables], softcap=5.0)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_matmul_of_quantised_weight(bits: int, zeros: bool) -> None:
    rows, columns, block = 5, 48, 16
    blocks = columns // block
    packed = RNG.integers(0, 256, (rows, blocks, block * bits // 8), dtype=np.uint8)
    scales = RNG.uniform(0.1, 1.0, (rows, blocks)).astype(np.float32)
    points = [RNG.integers(0, 256, (rows, -(-blocks * bits // 8)), dtype=np.uint8)] if zeros else []
    compare(
        "MatMulNBits", [floats(2, 3, columns), packed, scales, *points], stored=tuple(range(1, 3 + len(points))),
        tolerance=1e-3, K=columns, N=rows, bits=bits, block_size=block,
    )  # fmt: skip


def test_embed_layer_normalization() -> None:
    ids, segments = RNG.integers(0, 20, (2, 5)).astype(np.int32), RNG.integers(0, 2, (2, 5)).astype(np.int32)
    tables, norm = [floats(20, 8), floats(10, 8), floats(2, 8)], [floats(8), floats(8)]
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    compare("EmbedLayerNormalization", [ids, segments, *tables, *norm, mask], 2, epsilon=1e-5)
