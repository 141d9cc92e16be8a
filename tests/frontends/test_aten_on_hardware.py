"""Operators that pimc decomposes by rules of its own, compiled and run on the simulated hardware."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor
from torch_programs import Function, tensors_of

import pimc


def x(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


A, B = x(3, 4), x(3, 4, seed=1)

CASES: dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]] = {
    "truth of a scalar": (lambda a: (a.logical_not(), a.frexp()), (torch.tensor(2.5),)),
    "a clamp of integers at 0": (lambda i: i.clamp(min=0), (torch.tensor([3, -2, 0]),)),
    "masked_scatter": (lambda a, b: a.masked_scatter(a > 0, b), (A, B)),
    "cummax and atan2": (lambda a, b: (a.cummax(1), torch.atan2(a, b)), (A, B)),
    "pooling and transposed convolution": (
        lambda a, w: (F.max_pool2d(a, 2, ceil_mode=True, return_indices=True), F.conv_transpose2d(a, w, stride=2)),
        (x(1, 2, 3, 5), x(2, 3, 2, 2)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator_on_hardware(name: str) -> None:
    function, inputs = CASES[name]
    result = pimc.compile(Function(function).eval(), inputs).run(*(tensor.numpy() for tensor in inputs))
    for array, tensor in zip(result.outputs.values(), tensors_of(function(*inputs)), strict=True):
        np.testing.assert_allclose(array, tensor.double().numpy(), atol=1e-2, rtol=1e-2)
