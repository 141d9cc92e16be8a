"""Convolutions on the machine: against the interpreter in fp32, and a ResNet-18 against PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from graphs import compare, executable, floats, module_of, weight
from xdsl.ir import SSAValue

import pimc
from pimc.ir import nn

if TYPE_CHECKING:
    import torch


#: x and the weights are rounded to fp16 first.
ROUNDED = 5e-3


def conv(x: SSAValue, w: SSAValue, window: nn.Window, groups: int = 1, bias: SSAValue | None = None) -> list[SSAValue]:
    return [nn.ConvOp(x, w, bias, window, groups).result]


@pytest.mark.parametrize(
    ("sizes", "outputs", "places", "window", "groups"),
    [
        # one row of results is less than a block; then a row is more than one
        ((3, 9, 7), 33, (3, 3), nn.Window((1, 1), (1, 1), (1, 1), (1, 1)), 1),
        ((2, 3, 150), 40, (3, 5), nn.Window((1, 1), (1, 1), (0, 2), (0, 2)), 1),
        # several phases and rows of each
        ((4, 11, 12), 20, (7, 5), nn.Window((2, 3), (1, 2), (3, 1), (2, 4)), 1),
        # windows side by side; a single place with steps
        ((3, 16, 16), 24, (8, 8), nn.Window.plain((8, 8), (1, 1)), 1),
        ((8, 9, 9), 70, (1, 1), nn.Window.plain((2, 2), (1, 1)), 1),
        # more groups than cores and no multiple of them, parts of groups, and a last core with fewer groups
        ((45, 6, 5), 45, (3, 3), nn.Window((1, 1), (1, 1), (1, 1), (1, 1)), 45),
        ((6, 6, 5), 96, (3, 1), nn.Window((2, 1), (1, 1), (1, 0), (1, 0)), 3),
        ((70, 40), 140, (3,), nn.Window((2,), (1,), (1,), (1,)), 70),
    ],
)
@pytest.mark.parametrize("stored", [True, False])
def test_shapes(
    sizes: tuple[int, ...], outputs: int, places: tuple[int, ...], window: nn.Window, groups: int, stored: bool
) -> None:
    channels = sizes[0] // groups
    w = floats(outputs, channels, *places) * (channels * np.prod(places)) ** -0.5
    x, bias = floats(2, *sizes), {"b": floats(outputs)}
    arrays = [x] if stored else [x, w]

    def build(x: SSAValue, given: SSAValue | None = None) -> list[SSAValue]:
        return conv(x, weight("w", w) if given is None else given, window, groups, weight("b", bias["b"]))

    compare(arrays, build, bias | {"w": w} if stored else bias, tolerance=ROUNDED)


def test_weights_larger_than_their_share_are_read_in_blocks() -> None:
    """Six output channels a core of 8,100 elements each: 97 KB."""
    w = floats(192, 900, 3, 3) / 90
    window = nn.Window((1, 1), (1, 1), (1, 1), (1, 1))
    compare([floats(1, 900, 4, 4)], lambda x: conv(x, weight("w", w), window), {"w": w})


def words(side: int, channels: int, batch: int = 1) -> int:
    """Instructions of a core for an image of this size."""
    w = floats(64, channels, 3, 3)
    module = module_of(
        [floats(batch, channels, side, side)],
        lambda x: conv(x, weight("w", w), nn.Window((2, 2), (1, 1), (1, 1), (1, 1))),
    )
    code = executable(module, {"w": w}).program.code
    return max(len(words) for name, words in code.items() if "/core/" in name)


def test_the_program_does_not_grow_with_the_image() -> None:
    assert abs(words(9, 16) - words(40, 24)) <= 12  # constants of two words


# -- networks ---------------------------------------------------------------------------------------------------------


def resnet18(widths: tuple[int, ...] = (64, 128, 256, 512), classes: int = 1000) -> torch.nn.Module:
    """ResNet-18 (He et al., Deep Residual Learning for Image Recognition, 2016) with seeded weights and statistics."""
    import torch
    from torch import nn as tnn

    class Block(tnn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.first = tnn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.first_norm = tnn.BatchNorm2d(outputs)
            self.second = tnn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.second_norm = tnn.BatchNorm2d(outputs)
            self.shortcut: tnn.Module = tnn.Identity()
            if stride != 1 or inputs != outputs:
                self.shortcut = tnn.Sequential(
                    tnn.Conv2d(inputs, outputs, 1, stride, bias=False), tnn.BatchNorm2d(outputs)
                )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first_norm(self.first(x)))
            return torch.relu(self.second_norm(self.second(y)) + self.shortcut(x))

    torch.manual_seed(0)
    blocks: list[tnn.Module] = []
    inputs = widths[0]
    for stage, outputs in enumerate(widths):
        blocks += [Block(inputs, outputs, 2 if stage else 1), Block(outputs, outputs, 1)]
        inputs = outputs
    stem = [tnn.Conv2d(3, widths[0], 7, 2, 3, bias=False), tnn.BatchNorm2d(widths[0]), tnn.ReLU()]
    tail = [tnn.AdaptiveAvgPool2d(1), tnn.Flatten(), tnn.Linear(inputs, classes)]
    model = tnn.Sequential(*stem, tnn.MaxPool2d(3, 2, 1), *blocks, *tail)
    for module in model.modules():
        if isinstance(module, tnn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(0, 0.2)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    ("side", "widths"), [(32, (16, 32, 64, 128)), pytest.param(32, (64, 128, 256, 512), marks=pytest.mark.slow)]
)
def test_resnet18(side: int, widths: tuple[int, ...]) -> None:
    import torch

    model = resnet18(widths)
    x = torch.randn(1, 3, side, side)
    compiled = pimc.compile(model, (x,))
    got, want = compiled(x.numpy()), model(x).detach().numpy()
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, want, atol=4e-3 * float(np.abs(want).max()), rtol=0)
