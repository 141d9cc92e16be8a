"""ATen operators that are decomposed by pimc's own rules compute in the interpreter what they compute in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor
from torch_programs import Function, check_import

from pimc.frontends.tables import merged


def x(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def ints(high: int, *shape: int, low: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(high + sum(shape)))


A, B, M = x(2, 3, 4), x(2, 3, 4, seed=1), x(5, 4)
HOLES = torch.where(A > 1, float("nan"), A)
TIES = ints(3, 4, 6).float()
SIGNS = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.0, -0.0, 3.0, float("inf"), float("-inf"), 1.0])
OTHERS = torch.tensor([0.0, -0.0, -1.0, 1.0, -1.0, -2.0, 0.0, float("inf"), float("inf"), float("-inf")])
WIDE = torch.linspace(-4.3, 9.0, 40)
IMAGE, VOLUME = x(2, 4, 7, 8), x(1, 2, 5, 6, 4)
CLASSES, TARGET = x(5, 4).log_softmax(1), ints(4, 5)

CASES: dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]] = {
    "atan2": (lambda a, b: (torch.atan2(a, b), torch.atan2(b, a)), (SIGNS, OTHERS)),
    "copysign": (lambda a, b: (torch.copysign(a, b), torch.copysign(a, -0.0), b.signbit(), a.angle()), (SIGNS, OTHERS)),
    "softmax of rows that are all hidden": (
        lambda a: (torch.ops.aten._safe_softmax(a, 1), torch.ops.aten._safe_softmax(a, 0)),
        (torch.tensor([[1.0, float("-inf"), 2.0], [float("-inf")] * 3]),),
    ),
    "fmax": (lambda a, b: (torch.fmax(a, b), torch.fmin(b, a)), (HOLES, B)),
    "hypot": (torch.hypot, (SIGNS, OTHERS)),
    "unfold of a scalar": (lambda a: a.unfold(0, 1, 1), (torch.tensor(2.0),)),
    "round to decimals": (lambda a: (a.round(decimals=2), (a * 1e4).round(decimals=-3), a.round()), (A,)),
    "frexp": (torch.frexp, (SIGNS * 7.5,)),
    "gamma": (lambda a: (a.lgamma(), a.digamma(), a.polygamma(1), a.polygamma(2), a.mvlgamma(1)), (WIDE.abs() + 0.3,)),
    "gamma below 0": (lambda a: (a.lgamma(), a.digamma(), torch.polygamma(3, a)), (WIDE,)),
    "erfinv": (lambda a: a.erfinv(), (torch.linspace(-1, 1, 41),)),
    "diagonals": (
        lambda a, m: (m.diag(), m.diag(1), m.diag(-2), m[0].diag(), m.trace(), a.diagonal(0, 1, 2), a.diag_embed(),
                      a.diagonal_scatter(m[:2, :3], 0, 1, 2)),
        (A, M),
    ),
    "as_strided": (lambda m: (m.as_strided((3, 2), (4, 1), 1), m.as_strided_scatter(m[:2, :2], (2, 2), (4, 1))), (M,)),
    "median": (lambda a: (a.median(), a.median(1), a.median(-1, keepdim=True), a.kthvalue(2, 0)), (A,)),
    "median of NaN": (lambda a: (a.median(), a.median(-1), a.nanmedian(), a.nanmedian(1)), (HOLES,)),
    "mode": (lambda a: (a.mode(), a.mode(0, keepdim=True)), (TIES,)),
    "running extremes": (lambda a, b: (a.cummax(-1), a.cummin(0), b.cummax(1), a.logcumsumexp(1)), (TIES * 9, HOLES)),
    "histc": (lambda a: (torch.histc(a, 5), torch.histc(a, 4, -1, 1)), (A,)),
    "searchsorted": (
        lambda e, a: (torch.searchsorted(e, a), torch.bucketize(a, e, right=True), torch.isin(a, e)),
        (x(6).sort()[0], A),
    ),
    "masked_scatter": (lambda a, b: (a.masked_scatter(a > 0, b), a.masked_scatter(a[0] > 0, b)), (A, B)),
    "put and take": (
        lambda a, i, b: (a.put(i, b), a.put(i, b, accumulate=True), a.take(i)), (A, torch.tensor([3, -1, 7]), x(3)),
    ),
    "masked index_put": (
        lambda a, b: (a.index_put((a > 0,), b, accumulate=True), a.index_put((a[:, :, 0] > 0,), b)),
        (A, torch.tensor(2.0)),
    ),
    "nonzero_static": (lambda a: torch.nonzero_static(a > 0, size=6, fill_value=-7), (M,)),
    "scatter reductions": (
        lambda a, i, b: tuple(
            a.scatter_reduce(1, i, b, kind, include_self=old) for kind in ("sum", "prod", "mean", "amax", "amin")
            for old in (True, False)
        ),
        (A, ints(3, 2, 3, 4), B),
    ),
    "index reductions": (
        lambda a, i, b: (
            *(a.index_reduce(1, i, b, kind, include_self=old)
              for kind in ("prod", "mean", "amax") for old in (True, False)),
            a.index_add(1, i, b, alpha=2), a.index_fill(2, i, 7.0),
        ),
        (A, torch.tensor([2, 0, 2]), B),
    ),
    "scatter to a scalar": (lambda a, i: (a.scatter(0, i, 5.0), a.gather(0, i)), (torch.tensor(2.0), torch.tensor(0))),
    "slice_scatter with a step": (lambda a, b: a.slice_scatter(b, 2, 0, 4, 2), (A, B[..., :2])),
    "addbmm": (lambda m, a, b: torch.addbmm(m, a, b.mT, beta=0.5, alpha=2), (x(3, 3), A, B)),
    "distances": (lambda m, n: (torch.cdist(m, n), torch.cdist(m, n, 1.0), F.pdist(m)), (M, x(3, 4))),
    "bilinear": (F.bilinear, (x(3, 2), x(3, 4), x(5, 2, 4), x(5))),
    "meshgrid": (lambda a, b: (torch.meshgrid(a, b, indexing="ij"), torch.cartesian_prod(a, b)), (x(3), x(4))),
    "ranking losses": (
        lambda a, b: tuple((F.margin_ranking_loss(a, b, b.sign(), reduction=kind),
                            F.hinge_embedding_loss(a, b.sign(), reduction=kind)) for kind in ("none", "sum", "mean")),
        (A, B),
    ),
    "convolution of computed weights": (
        lambda a, w, b: (F.conv2d(a, w, b, padding="same"), F.conv2d(a, w, stride=2, dilation=2)),
        (IMAGE, x(6, 4, 3, 3), x(6)),
    ),
    "transposed convolution": (
        lambda a, w, b: (F.conv_transpose2d(a, w, b, 2, 1, 1), F.conv_transpose2d(a, w, None, 1, 0, 0, 2, 2)),
        (IMAGE, x(4, 3, 3, 2), x(3)),
    ),
    "convolution of volumes": (
        lambda a, w: (F.conv3d(a, w, padding=1), F.conv_transpose3d(a, w, stride=2)), (VOLUME, x(2, 2, 2, 3, 3)),
    ),
    "max_pool": (
        lambda a: (F.max_pool2d(a, 3, 2, 1, ceil_mode=True, return_indices=True), F.max_pool2d(a, 2, dilation=2),
                   F.max_pool1d(a[0], 3, 2, return_indices=True)),
        (IMAGE,),
    ),
    "avg_pool": (
        lambda a: (F.avg_pool2d(a, 3, 2, 1, True), F.avg_pool2d(a, 3, 2, 1, True, False), F.lp_pool2d(a, 2, 2),
                   F.avg_pool2d(a, 2, divisor_override=3)),
        (IMAGE,),
    ),
    "adaptive pools": (
        lambda a: (F.adaptive_avg_pool2d(a, (3, 5)), F.adaptive_max_pool2d(a, (3, 5), return_indices=True),
                   F.adaptive_max_pool1d(a[0], 3)),
        (IMAGE,),
    ),
    "pools of volumes": (
        lambda a: (F.max_pool3d(a, 2, ceil_mode=True, return_indices=True), F.avg_pool3d(a, 2, padding=1),
                   F.adaptive_avg_pool3d(a, (2, 4, 3)), F.adaptive_max_pool3d(a, 2)),
        (VOLUME,),
    ),
    "bags": (
        lambda m, i, o: tuple(F.embedding_bag(i, m, o, mode=kind, padding_idx=1) for kind in ("sum", "mean", "max")),
        (M, ints(5, 9), torch.tensor([0, 2, 2, 6])),
    ),
    "segments": (
        lambda a, n: tuple(torch.segment_reduce(a, kind, lengths=n) for kind in ("sum", "mean", "max", "prod")),
        (M, torch.tensor([2, 0, 3])),
    ),
    "samples of volumes": (
        lambda a, g: (F.grid_sample(a, g, "bilinear", "reflection", align_corners=True),
                      F.grid_sample(a, g, "nearest", "border", align_corners=False)),
        (VOLUME, x(1, 2, 3, 3, 3)),
    ),
    "resizing with antialias": (
        lambda a: F.interpolate(a, (3, 11), mode="bilinear", antialias=True), (IMAGE,),
    ),
    "pads that cut": (lambda a: F.pad(a, (-8, 3, 2, -9), "replicate"), (IMAGE,)),
    "norms of the batch": (
        lambda a: (F.instance_norm(a), F.batch_norm(a, None, None, training=True),
                   torch.native_layer_norm(a, (8,), None, None, 1e-5),
                   torch.native_group_norm(a, None, None, 2, 4, 56, 2, 1e-5)),
        (IMAGE,),
    ),
}  # fmt: skip


LONG = frozenset({
    "gamma", "gamma below 0", "diagonals", "running extremes", "norms of the batch", "mode", "distances", "histc",
    "addbmm", "scatter reductions", "index reductions", "pools of volumes", "convolution of volumes", "median of NaN",
})  # fmt: skip
"""Cases of a second and more; the samples of PyTorch's own operator database cover them in part on every run."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in CASES])
def test_operator(name: str) -> None:
    function, inputs = CASES[name]
    check_import(Function(function), inputs, atol=1e-4)


def test_reductions_of_nll_loss() -> None:
    """Without reduction there is one loss an element, and a sum is no mean."""
    weights = torch.rand(4)

    def losses(c: Tensor, t: Tensor, w: Tensor) -> list[Tensor]:
        return [
            F.nll_loss(c, t, weight, reduction=kind, ignore_index=1)
            for kind in ("none", "sum", "mean")
            for weight in (None, w)
        ]

    found = check_import(Function(losses), (CLASSES, TARGET, weights))
    assert [array.shape for array in found.values()] == [(5,), (5,), (), (), (), ()]


def test_repeated_entries_are_refused() -> None:
    """Two modules with an entry of one name: neither may win in silence."""
    from pimc.frontends import aten_index, aten_math  # any two modules

    with pytest.raises(ValueError, match=r"a\.b stands in .*aten_index and in .*aten_math"):
        merged([(aten_index, {"a.b": 1}), (aten_math, {"a.b": 2})])
