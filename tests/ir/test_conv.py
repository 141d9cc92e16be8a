"""Convolutions: their meaning beside PyTorch's, and what the verifier refuses."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import module_of
from one_operator import value
from random_graphs.case import interpreted
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import VerifyException

from pimc.ir import nn

X = value("f32", 1, 6, 8, 9)


@pytest.mark.parametrize(
    ("sizes", "places", "strides", "dilations", "padding", "groups"),
    [
        ((11,), (3,), (1,), (1,), (1,), 1),
        ((9, 8), (3, 2), (2, 1), (1, 3), (1, 0), 2),
        ((9, 8), (1, 1), (2, 2), (1, 1), (0, 0), 1),
        ((9, 8), (3, 3), (1, 1), (2, 2), (2, 2), 6),
        ((5, 6, 4), (2, 3, 2), (1, 2, 3), (1, 1, 2), (0, 1, 1), 3),
    ],
)  # fmt: skip
def test_meaning_is_pytorchs(
    sizes: tuple[int, ...],
    places: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    padding: tuple[int, ...],
    groups: int,
) -> None:
    import torch

    rng = np.random.default_rng(3)
    arrays = [
        rng.standard_normal(shape).astype(np.float32) for shape in ((2, 6, *sizes), (12, 6 // groups, *places), (12,))
    ]
    window = nn.Window(strides, dilations, padding, padding)

    def build(x: SSAValue, weight: SSAValue, bias: SSAValue) -> list[SSAValue]:
        return [nn.ConvOp(x, weight, bias, window, groups).result]

    (found,) = interpreted(module_of(arrays, build), {}, arrays)
    function = [torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d][len(sizes) - 1]
    wanted = function(*map(torch.from_numpy, arrays), strides, padding, dilations, groups)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_pooling_is_pytorchs() -> None:
    import torch

    x = np.random.default_rng(3).standard_normal((2, 6, 9, 8)).astype(np.float32)
    window = nn.Window((2, 1), (1, 2), (1, 1), (1, 1))
    (found,) = interpreted(module_of([x], lambda x: [nn.MaxPoolOp(x, (3, 2), window).result]), {}, [x])
    wanted = torch.nn.functional.max_pool2d(torch.from_numpy(x), (3, 2), (2, 1), 1, (1, 2))
    np.testing.assert_array_equal(found, wanted.numpy())


@pytest.mark.parametrize(
    ("weight", "window", "groups", "message"),
    [
        ((4, 6, 3, 3), nn.Window.plain((1,), (1, 1)), 1, r"strides must have 2 number\(s\), has 1"),
        ((4, 6, 3, 3), nn.Window.plain((1, 0), (1, 1)), 1, r"strides must be at least 1, are \[1, 0\]"),
        ((4, 6, 3, 3), nn.Window((1, 1), (1, 1), (0, -1), (0, 0)), 1, "low must be at least 0"),
        ((4, 3, 3, 3), nn.Window.plain((1, 1), (1, 1)), 1, "weight must have shape "),
        ((4, 2, 3, 3), nn.Window.plain((1, 1), (1, 1)), 3, "4 output channels are no multiple of 3 groups"),
        ((4, 6, 3, 3), nn.Window.plain((1, 1), (1, 1)), 4, "6 channels are no multiple of 4 groups"),
        ((4, 6, 3, 0), nn.Window.plain((1, 1), (1, 1)), 1, "a window without places"),
        ((4, 6, 9, 3), nn.Window.plain((1, 1), (1, 1)), 1, "does not fit"),
    ],
)
def test_what_the_verifier_refuses(weight: tuple[int, ...], window: nn.Window, groups: int, message: str) -> None:
    with pytest.raises(VerifyException, match=message):
        nn.ConvOp(X, value("f32", *weight), None, window, groups)
