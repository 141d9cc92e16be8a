"""Every ATen operator that has a converter computes in the interpreter what it computes in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor
from torch_programs import Function, check_import


def x(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def ints(high: int, *shape: int, low: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(high + sum(shape)))


A, B, P = x(2, 3, 4), x(3, 1), x(2, 3, 4).abs() + 0.1
M, N = ints(9, 2, 3, low=-9), ints(5, 2, 3, low=1)
T = A > 0
IMAGE = x(2, 4, 9, 8)

UNARY = [
    "abs", "atan", "asinh", "ceil", "cos", "cosh", "erf", "erfc", "exp", "exp2", "expm1", "floor", "neg", "positive",
    "relu", "round", "sgn", "sigmoid", "sign", "sin", "sinh", "square", "tan", "tanh", "trunc", "isnan", "isinf",
    "isfinite", "frac", "deg2rad", "logical_not",
]  # fmt: skip
POSITIVE = ["log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt"]
ACTIVATIONS = [
    "gelu", "silu", "elu", "celu", "selu", "leaky_relu", "softplus", "softsign", "hardtanh", "hardswish",
    "hardsigmoid", "mish", "relu6", "logsigmoid", "tanhshrink", "softshrink", "hardshrink",
]  # fmt: skip

CASES: dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]] = {
    **{name: (getattr(torch, name), (A * 1.5,)) for name in UNARY},
    **{name: (getattr(torch, name), (P,)) for name in POSITIVE},
    **{name: (getattr(F, name), (A * 3,)) for name in ACTIVATIONS},
    "inverse functions": (lambda a: (a.asin(), a.acos(), a.atanh(), (a + 2).acosh()), (A.tanh(),)),
    "gelu tanh": (lambda a: F.gelu(a, approximate="tanh"), (A,)),
    "arithmetic": (lambda a, b: (a + b, a - b, a * b, a / b, torch.add(a, b, alpha=2), 3 - a, 2 / a), (A, B)),
    "arithmetic of integers": (lambda i, j: (i + j, i - j, i * j, -i, i.abs(), 3 - i, i.sign(), i.relu()), (M, N)),
    "division of integers": (
        lambda i, j: (i / j, i // j, i % j, torch.fmod(i, j), torch.div(i, j, rounding_mode="trunc")), (M, N),
    ),
    "division with rounding": (
        lambda a, b: (torch.div(a, b, rounding_mode="floor"), torch.div(a, b, rounding_mode="trunc"), a % b), (A, B),
    ),
    "powers": (lambda a, b: (a**2, a**0.5, 2.0**a, torch.pow(a, b)), (P, B)),
    "maximum": (lambda a, b: (torch.maximum(a, b), torch.minimum(a, b), torch.max(a, b)), (A, B)),
    "clamp": (lambda a: (a.clamp(-1, 1), a.clamp(min=0.0), a.clamp_max(0.5), a.clamp(max=a.mean())), (A,)),
    "comparison": (lambda a, b: (a < b, a <= 0, a > 0.5, a >= b, a == b, a != 1), (A, B)),
    "comparison of integers": (lambda i, j: (i < j, i == 3, i > 0.5, i != j), (M, N)),
    "logic": (lambda t, a: (t & (a > 1), t | (a < 0), t ^ (a > 1), ~t, torch.logical_and(t, a)), (T, A)),
    "bits": (lambda i, j: (i & j, i | j, i ^ 3, ~i, j << 2, j >> 1), (M, N)),
    "where": (lambda t, a, b: (torch.where(t, a, b), torch.where(t, a, 0.0), torch.where(t, 1.0, -1.0)), (T, A, B)),
    "masked_fill": (lambda t, a: (a.masked_fill(t, -5.0), a.masked_fill(~t, a.mean())), (T, A)),
    "promotion": (lambda i, a: (i * 1.5, i + a, i.float() / 2, i.bool(), (i > 0).float() + 1, (i > 0) + 1), (M, x(3))),
    "lerp and friends": (lambda a, b: (torch.lerp(a, b, 0.3), torch.addcmul(a, a, b), torch.addcdiv(a, a, b)), (A, B)),
    "softmax": (lambda a: (a.softmax(-1), a.softmax(0), a.log_softmax(1), F.softmin(a, -1)), (A,)),
    "logsumexp": (lambda a: (a.logsumexp(-1), a.logsumexp((0, 1), keepdim=True)), (A,)),
    "layer_norm": (lambda a: (F.layer_norm(a, (4,)), F.layer_norm(a, (3, 4))), (A,)),
    "rms_norm": (lambda a: (F.rms_norm(a, (4,)), F.rms_norm(a, (3, 4), eps=1e-3)), (A,)),
    "group_norm": (lambda a: (F.group_norm(a, 2), F.instance_norm(a)), (IMAGE,)),
    "normalize": (lambda a: (F.normalize(a, dim=-1), F.cosine_similarity(a, a * 2 + 1, dim=1)), (A,)),
    "norms": (lambda a: (a.norm(), a.norm(dim=-1), torch.linalg.vector_norm(a, 1, dim=0), a.norm(p=3)), (A,)),
    "mean": (lambda a: (a.mean(), a.mean(-1), a.mean((0, 2), keepdim=True)), (A,)),
    "sum": (lambda a, i, t: (a.sum(), a.sum(1), i.sum(-1), t.sum(), t.sum(-1)), (A, M, T)),
    "prod": (lambda a: (a.prod(), a.prod(1), a.prod(-1, keepdim=True)), (A,)),
    "variance": (lambda a: (a.var(), a.var(-1), a.std(1, correction=0), torch.var_mean(a, 0), torch.std_mean(a)), (A,)),
    "extremes": (lambda a: (a.amax(-1), a.amin((0, 1)), a.max(), a.min(), a.aminmax()), (A,)),
    "extremes with places": (lambda a: (a.max(-1), a.min(1, keepdim=True), a.max(0).values), (A,)),
    "argmax": (lambda a: (a.argmax(), a.argmax(-1), a.argmin(1, keepdim=True)), (A,)),
    "any": (lambda t, a: (t.any(), t.any(-1), t.all(1), t.all(), a.any()), (T, A)),
    "topk": (lambda a: (a.topk(2), a.topk(2, dim=1, largest=False)), (A,)),
    "sort": (lambda a: (a.sort(), a.sort(dim=1, descending=True), a.argsort(-1)), (A,)),
    "cumsum": (lambda a, i: (a.cumsum(-1), a.cumprod(1), i.cumsum(0)), (A, M)),
    "matmul": (lambda a, b, v: (a @ b, a @ v, v @ b, v @ v, b.mT @ b), (A, x(2, 4, 5), x(4))),
    "matmul with broadcast": (lambda a, b: (a @ b, b.mT @ a.mT), (A, x(5, 1, 4, 6))),
    "matrix products": (
        lambda a, b, c: (a.mm(b), torch.addmm(c, a, b), torch.addmm(c, a, b, beta=0.5, alpha=2), a.mv(b[:, 0])),
        (x(3, 4), x(4, 5), x(5)),
    ),
    "batched products": (
        lambda a, b, c: (torch.bmm(a, b), torch.baddbmm(c, a, b, beta=0.5), torch.dot(a[0, 0], b[0, :, 0])),
        (A, x(2, 4, 5), x(2, 3, 5)),
    ),
    "einsum": (
        lambda a, b: (
            torch.einsum("bij,bjk->bik", a, b), torch.einsum("bij,bjk->", a, b), torch.einsum("bij->jb", a),
            torch.einsum("bhqd,bhkd->bhqk", a.unsqueeze(1), b.mT.unsqueeze(1)),
        ),
        (A, x(2, 4, 5)),
    ),
    "linear of computed weights": (lambda a, w, b: (F.linear(a, w), F.linear(a, w.tanh(), b)), (A, x(5, 4), x(5))),
    "attention": (F.scaled_dot_product_attention, (x(2, 2, 3, 4), x(2, 2, 5, 4), x(2, 2, 5, 6))),
    "attention, causal": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True, scale=0.3), (x(2, 2, 3, 4), x(2, 2, 5, 4)),
    ),
    "attention with a mask": (
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m), (x(2, 2, 3, 4), x(2, 2, 5, 4), x(2, 1, 3, 5)),
    ),
    "attention with shared heads": (
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m, enable_gqa=True),
        (x(1, 4, 3, 4), x(1, 2, 5, 4), x(3, 5) > -1),
    ),
    "attention of rank 3": (lambda q: F.scaled_dot_product_attention(q, q, q), (A,)),
    "shapes": (
        lambda a: (a.reshape(6, -1), a.flatten(1), a.unsqueeze(1), a[:, :1].squeeze(1), a.unflatten(2, (2, 2)),
                   a.ravel()),
        (A,),
    ),
    "order": (lambda a: (a.permute(2, 0, 1), a.transpose(0, -1), a.mT, a[0].T, a.movedim(0, 2)), (A,)),
    "expand": (lambda b: (b.expand(2, 3, 4), b.expand(-1, 4), b.repeat(2, 1, 3), b.tile(2)), (B,)),
    "interleave": (lambda a: (a.repeat_interleave(2, 1), a.repeat_interleave(3)), (A,)),
    "slices": (lambda a: (a[:, 1:], a[..., ::2], a[1, -1], a.narrow(1, 0, 2), a[:, :, -3:-1], a.select(2, -1)), (A,)),
    "parts": (
        lambda a: (a.split(2, 1), a.chunk(2, -1), a.unbind(1), a.split([1, 3], 2), a.tensor_split(2, 1)), (A,),
    ),
    "joins": (
        lambda a: (torch.cat([a, a * 2], 1), torch.stack([a, a], -1), torch.hstack([a, a]), torch.cat([a, a > 0], -1)),
        (A,),
    ),
    "flip and roll": (lambda a: (a.flip(1), a.flip((0, 2)), a.roll(1, -1), a.roll((1, -2), (1, 2)), a.roll(5)), (A,)),
    "pad": (
        lambda a: (F.pad(a, (1, 2)), F.pad(a, (1, 0, 2, 1), value=3.0), F.pad(a, (-1, 1)), F.pad(a, (1, 2), "reflect"),
                   F.pad(a, (1, 2), "replicate"), F.pad(a, (1, 2), "circular")),
        (A,),
    ),
    "triangles": (lambda a: (a.tril(), a.triu(1), a.tril(-1), (a > 0).triu()), (A,)),
    "ranges": (
        lambda a: (a + torch.arange(4), a * torch.arange(1, 9, 2), a + torch.linspace(0, 1, 4), torch.eye(4) @ a.mT),
        (A,),
    ),
    "made": (
        lambda a: (torch.zeros_like(a), a.new_ones(2), torch.full((2, 2), 3.0), torch.ones(3, dtype=torch.long),
                   torch.tensor([1.0, 2.0, 3.0]), torch.zeros(0, 2)),
        (A,),
    ),
    "embedding": (lambda i, w: (F.embedding(i, w), F.embedding(i[0], w), F.embedding(i[0, 0], w)), (N, x(6, 4))),
    "one_hot": (lambda i: F.one_hot(i, 7), (N,)),
    "gather": (
        lambda a, i: (a.gather(1, i), a.gather(-1, i), torch.take_along_dim(a[:, :2], i, 2)), (A, ints(3, 2, 2, 4)),
    ),
    "index_select": (lambda a, i: (a.index_select(1, i), a.take(i)), (A, ints(3, 5))),
    "index": (
        lambda a, i, j: (a[i], a[:, i], a[i, j], a[:, i, j], a[i, :, j], a[:, -1], a[i, None, 0]),
        (A, ints(2, 5), ints(3, 5)),
    ),
    "index by constants": (lambda a: (a[:, [2, 0]], a[[0, 1], [1, 2]], a[torch.tensor([True, False])]), (A,)),
    "index_put": (
        lambda a, i, b: (a.index_put((i,), b), a.index_put((i,), b, accumulate=True)), (A, ints(2, 1), x(3, 4)),
    ),
    "masked index_put": (lambda a: torch.index_put(a, (a > 0,), torch.tensor(7.0)), (A,)),
    "scatter": (
        lambda a, i, b: (a.scatter(1, i, b), a.scatter(1, i, 3.0), a.scatter_add(1, i, b),
                         a.scatter_reduce(1, i, b, "amax"), a.scatter_reduce(1, i, b, "prod")),
        (A, torch.stack([torch.randperm(3)[:2] for _ in range(8)]).reshape(2, 4, 2).mT.contiguous(), x(2, 2, 4)),
    ),
    "index_add": (lambda a, i, b: (a.index_add(1, i, b), a.index_copy(1, i, b)), (A, torch.tensor([2, 0]), x(2, 2, 4))),
    "select_scatter": (lambda a, b: (a.select_scatter(b, 1, -1), a.slice_scatter(a * 2, 2, 0, 4)), (A, x(2, 4))),
    "unfold": (lambda a: (a.unfold(2, 3, 2), a.unfold(-1, 2, 1)), (IMAGE,)),
    "im2col": (lambda a: F.unfold(a, (2, 3), stride=2, padding=1), (IMAGE,)),
    "max_pool": (lambda a: (F.max_pool2d(a, 2), F.max_pool2d(a, 3, 1, 1), F.max_pool1d(a[0], 2)), (IMAGE,)),
    "avg_pool": (
        lambda a: (F.avg_pool2d(a, 3, 2, 1), F.avg_pool2d(a, 2, padding=1, count_include_pad=False),
                   F.avg_pool1d(a[0], 2)),
        (IMAGE,),
    ),
    "adaptive_avg_pool": (lambda a: (F.adaptive_avg_pool2d(a, 1), F.adaptive_avg_pool2d(a, (3, 4))), (IMAGE,)),
    "pixel_shuffle": (lambda a: F.pixel_shuffle(a, 2), (IMAGE,)),
    "interpolate": (lambda a: F.interpolate(a, scale_factor=2, mode="nearest"), (IMAGE,)),
    "casts": (lambda a: (a.to(torch.int32), a.half().float() * 0 + a, a.double(), a.long(), a.bool()), (A,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    function, inputs = CASES[name]
    check_import(Function(function), inputs)
