"""Convolutions, pooling, resizing and sampling, compared with ONNX Runtime or ONNX's reference implementation."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from onnx_runtime import Attribute, compare, node_model

from pimc.frontends.onnx import import_onnx
from pimc.ir.interpreter import Interpreter

RNG = np.random.default_rng(9)


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("stored", [(), (1, 2)])
@pytest.mark.parametrize(
    ("weight", "attributes"),
    [
        ((4, 6, 3, 2), {}),
        ((4, 6, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
        ((4, 3, 3, 3), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((6, 1, 3, 3), {"group": 6, "auto_pad": "SAME_LOWER"}),
        ((4, 6, 4, 2), {"strides": [4, 2]}),
    ],
)
def test_convolution(weight: tuple[int, ...], attributes: dict[str, Attribute], stored: tuple[int, ...]) -> None:
    group = {"group": attributes["group"]} if "group" in attributes else {}
    rest = {key: value for key, value in attributes.items() if key != "group"}
    compare("Conv", [floats(2, 6, 9, 8), floats(*weight), floats(weight[0])], stored=stored, **group, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_convolution_is_one_operator(op: str) -> None:
    module = compare(op, [floats(1, 3, 8, 8), floats(*((16, 3) if op == "Conv" else (3, 16)), 3, 3)], stored=(1,))
    names = [found.name for found in module.walk()]
    assert names.count("nn.conv") == 1
    assert not set(names) & {"nn.slice", "nn.pad", "nn.matmul", "nn.concat", "nn.linear"}


@pytest.mark.parametrize("stored", [(), (1,)])
def test_transposed_convolution(stored: tuple[int, ...]) -> None:
    x, weight = floats(1, 4, 5, 3), floats(4, 3, 3, 2)
    compare("ConvTranspose", [x, weight], stored=stored, strides=[3, 2], pads=[1, 0, 0, 1], output_padding=[1, 1])
    compare("ConvTranspose", [x, weight], stored=stored, strides=[3, 2], output_shape=[14, 6])
    compare("ConvTranspose", [x, floats(4, 2, 3, 2)], stored=stored, group=2, dilations=[2, 1])


@pytest.mark.parametrize("rounds_up", [0, 1])
def test_pooling(rounds_up: int) -> None:
    x = floats(2, 3, 9, 8)
    window: dict[str, list[int]] = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    compare("MaxPool", [x], 2, ceil_mode=rounds_up, **window)  # type: ignore[arg-type]
    compare("AveragePool", [x], ceil_mode=rounds_up, **window)  # type: ignore[arg-type]
    compare("AveragePool", [x], ceil_mode=rounds_up, count_include_pad=1, **window)  # type: ignore[arg-type]
    compare("LpPool", [x], p=3, **window)  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["GlobalMaxPool", "GlobalAveragePool"])
def test_pooling_of_everything(op: str) -> None:
    compare(op, [floats(2, 3, 4, 5)])


def test_norm_of_everything() -> None:
    x = floats(2, 3, 4, 5)
    model, given = node_model("GlobalLpPool", [x], ["y"], attributes={"p": 2})
    model.graph.output[0].type.tensor_type.elem_type = 1
    imported = import_onnx(model)
    got = Interpreter(imported.module, imported.weights, "f32").call("main", given)["y"]
    np.testing.assert_allclose(got, np.sqrt((x * x).sum(axis=(2, 3), keepdims=True)), rtol=1e-5)


def test_windows_put_back() -> None:
    image, block = np.array([5, 5], np.int64), np.array([3, 2], np.int64)
    compare("Col2Im", [floats(1, 12, 8), image, block], stored=(1, 2), strides=[2, 1], pads=[1, 0, 0, 0])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
def test_resize(mode: str, coordinates: str) -> None:
    x, none = floats(1, 2, 5, 7), np.zeros(0, np.float32)
    sizes, scales = np.array([1, 2, 9, 4], np.int64), np.array([1, 1, 1.7, 0.6], np.float32)
    run = partial(compare, "Resize", mode=mode, coordinate_transformation_mode=coordinates, reference=True)
    run([x, none, none, sizes], stored=(1, 2, 3))
    run([x, none, scales], stored=(1, 2))


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_grid_sample(mode: str, padding: str) -> None:
    grid = RNG.uniform(-1.4, 1.4, (1, 3, 2, 2)).astype(np.float32)
    for corners in (0, 1):
        compare(
            "GridSample",
            [floats(1, 2, 5, 6), grid],
            mode=mode,
            padding_mode=padding,
            align_corners=corners,
            reference=True,
        )


def test_convolution_of_integers() -> None:
    x, weight = RNG.integers(0, 255, (1, 2, 5, 5)).astype(np.uint8), RNG.integers(0, 255, (3, 2, 3, 3)).astype(np.uint8)
    compare("ConvInteger", [x, weight, np.array(9, np.uint8), np.array(4, np.uint8)], pads=[1, 1, 1, 1])


def test_fourier_transforms() -> None:
    axis = np.array(1, np.int64)
    compare("DFT", [floats(2, 10, 3, 1), None, axis], stored=(2,), onesided=1, tolerance=1e-4, reference=True)
    compare("DFT", [floats(2, 10, 3, 2), np.array(12, np.int64), axis], stored=(1, 2), inverse=1, reference=True)
    step, window = np.array(4, np.int64), np.hanning(8).astype(np.float32)
    compare("STFT", [floats(2, 32, 1), step, window], stored=(1, 2), onesided=1, tolerance=1e-4, reference=True)
