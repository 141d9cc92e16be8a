"""Convolutions on the machine: against the interpreter in fp32, and a ResNet-18 against PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from graphs import compare, executable, floats, module_of, weight
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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


@dataclass(frozen=True)
class Layer:
    """A convolution, or (``outputs`` 0) a pooling."""

    outputs: int
    places: tuple[int, ...]
    window: nn.Window
    groups: int = 1


@st.composite
def windows(draw: st.DrawFn, sizes: Sequence[int]) -> tuple[tuple[int, ...], nn.Window]:
    """A window that fits."""
    places = [draw(st.integers(1, min(5, size))) for size in sizes]
    strides = [draw(st.integers(1, 3)) for _ in sizes]
    dilations = [
        1 if n == 1 else draw(st.integers(1, max(1, min(2, (s - 1) // (n - 1)))))
        for n, s in zip(places, sizes, strict=True)
    ]
    low, high = ([draw(st.integers(0, n // 2)) for n in places] for _ in range(2))
    return tuple(places), nn.Window(*(tuple(each) for each in (strides, dilations, low, high)))


@st.composite
def networks(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Layer]]:
    """An image (or a line), and layers for it."""
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=2))
    channels = draw(st.integers(1, 12))
    shape, layers = (draw(st.integers(1, 3)), channels, *sizes), list[Layer]()
    for _ in range(draw(st.integers(1, 3))):
        places, window = draw(windows(sizes))
        sizes = list(window.counts(sizes, places))
        if draw(st.integers(0, 2)):
            groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
            channels = groups * draw(st.integers(1, 40 // groups))
            layers.append(Layer(channels, places, window, groups))
        else:
            layers.append(Layer(0, places, window))
    return shape, layers


MACHINES = (
    ("cores.count=8", "hbm.stacks=1", "noc.columns=2"),
    ("cores.count=24", "hbm.stacks=3", "noc.columns=6"),
    ("memory.activation.bytes=131072", "memory.temp.base=131072"),
    (),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from(MACHINES))
def test_random_networks(network: tuple[tuple[int, ...], list[Layer]], machine: tuple[str, ...]) -> None:
    """Against PyTorch: sizes, steps, paddings, groups, cores, memories."""
    import torch
    from torch.nn import functional

    shape, layers = network
    rng = np.random.default_rng(0)
    x, weights = np.asarray(rng.standard_normal(shape), np.float16).astype(np.float32), dict[str, np.ndarray]()
    expected, channels = torch.from_numpy(x), shape[1]
    for number, layer in enumerate(layers):
        w = layer.window
        pad = [n for pair in reversed(list(zip(w.low, w.high, strict=True))) for n in pair]
        if layer.outputs:
            own = channels // layer.groups
            values = rng.standard_normal((layer.outputs, own, *layer.places)) * (own * np.prod(layer.places)) ** -0.5
            weights[f"w{number}"] = np.asarray(values, np.float16).astype(np.float32)
            move = functional.conv1d if len(w.low) == 1 else functional.conv2d
            padded, given_weight = functional.pad(expected, pad), torch.from_numpy(weights[f"w{number}"])
            expected = move(padded, given_weight, None, w.strides, 0, w.dilations, layer.groups).relu()
            channels = layer.outputs
        else:
            padded = functional.pad(expected, pad, value=-torch.inf)
            pool = functional.max_pool1d if len(w.low) == 1 else functional.max_pool2d
            expected = pool(padded, layer.places, w.strides, 0, w.dilations)

    def build(value: SSAValue) -> list[SSAValue]:
        for number, layer in enumerate(layers):
            if layer.outputs:
                stored = weight(f"w{number}", weights[f"w{number}"])
                value = nn.ReluOp(nn.ConvOp(value, stored, None, layer.window, layer.groups).result).result
            else:
                value = nn.MaxPoolOp(value, layer.places, layer.window).result
        return [value]

    compiled = executable(module_of([x], build), weights, machine)
    (got,) = compiled.run({"input0": x}).outputs.values()
    np.testing.assert_allclose(got, expected.numpy(), rtol=ROUNDED, atol=ROUNDED)


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
    ("side", "widths", "batch"),
    [
        (32, (16, 32, 64, 128), 1),
        (48, (8, 16, 32, 64), 3),
        pytest.param(32, (64, 128, 256, 512), 1, marks=pytest.mark.slow),
        pytest.param(224, (64, 128, 256, 512), 1, marks=pytest.mark.slow),
        pytest.param(224, (64, 128, 256, 512), 2, marks=pytest.mark.slow),
    ],
)
def test_resnet18(side: int, widths: tuple[int, ...], batch: int) -> None:
    import torch

    model = resnet18(widths)
    x = torch.randn(batch, 3, side, side)
    compiled = pimc.compile(model, (x,))
    got, want = compiled(x.numpy()), model(x).detach().numpy()
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, want, atol=4e-3 * float(np.abs(want).max()), rtol=0)
