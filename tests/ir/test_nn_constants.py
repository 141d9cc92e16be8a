"""Constants of every element type, through text and back; conversions between all of them."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from one_operator import ELEMENTS, FLOATS, INTEGERS, Array, module_of, run, value
from xdsl.dialects.builtin import TensorType

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.context import parse_module, print_module
from pimc.ir.interpreter import Interpreter
from pimc.ir.interpreter.core import held_dtype
from pimc.ir.nn.base import element_bytes, is_float, is_integer


def constant(array: npt.ArrayLike, element: str) -> Array:
    module = module_of([], lambda: nn.ConstantOp.from_array(np.asarray(array), ELEMENTS[element]))
    return Interpreter(module, precision="f32").call("main", {})["result0"]


@pytest.mark.parametrize("element", ELEMENTS)
def test_shapes_of_constants(element: str) -> None:
    for array in (1, [1, 0, 1], [1, 1], [[1, 0], [0, 1]], [], np.zeros((2, 0, 3)), [[1]]):
        got = constant(array, element)
        assert got.shape == np.shape(array)
        np.testing.assert_array_equal(got, np.asarray(array).astype(held_dtype(ELEMENTS[element])))


@pytest.mark.parametrize("element", FLOATS)
def test_floats_that_are_no_numbers_keep_their_bits(element: str) -> None:
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1.5])
    got = constant(odd, element)
    np.testing.assert_array_equal(got, odd)
    assert np.signbit(got[3])
    for one in (np.nan, np.inf, -np.inf):
        np.testing.assert_array_equal(constant(one, element), one)
        np.testing.assert_array_equal(constant([one] * 3, element), [one] * 3)


@pytest.mark.parametrize("element", ["f32", "f64"])
def test_floats_with_many_digits(element: str) -> None:
    """Some of these are printed as bit patterns, which is no matter of NaN alone."""
    numbers = [123456789.0, 16777217.0, 2.0**30, 1e20, 1 / 3, 3.4e38, 1.2e-38, 1e-45]
    dtype = held_dtype(ELEMENTS[element])
    np.testing.assert_array_equal(constant(numbers, element), np.array(numbers, dtype))


def test_floats_are_rounded_to_the_type() -> None:
    numbers = [1 / 3, 65519.0, 65520.0, -1e30]
    np.testing.assert_array_equal(constant(numbers, "f16"), [np.float16(1 / 3), 65504, np.inf, -np.inf])
    assert constant([1e39], "f32")[0] == np.inf
    assert constant([1e39], "f64")[0] == 1e39
    np.testing.assert_array_equal(constant([1 + 2**-8, 1 + 3 * 2**-8], "bf16"), [1.0, 1 + 2**-6])


@pytest.mark.parametrize("element", INTEGERS)
def test_limits_of_integers(element: str) -> None:
    limits = np.iinfo(np.dtype(held_dtype(ELEMENTS[element])))
    assert constant(np.array([limits.min, limits.max], limits.dtype), element).tolist() == [limits.min, limits.max]
    assert constant(np.array(limits.max, limits.dtype), element).item() == limits.max


def test_sizes_and_kinds() -> None:
    sizes = {"f16": 2, "bf16": 2, "f64": 8, "i1": 1, "i16": 2, "ui8": 1, "ui32": 4, "ui64": 8, "index": 8}
    assert {name: element_bytes(ELEMENTS[name]) for name in sizes} == sizes
    assert all(is_float(ELEMENTS[name]) and not is_integer(ELEMENTS[name]) for name in FLOATS)
    assert all(is_integer(ELEMENTS[name]) and not is_float(ELEMENTS[name]) for name in (*INTEGERS, "i1", "index"))


def test_bit_patterns_that_are_too_long() -> None:
    text = print_module(module_of([], lambda: nn.ConstantOp.from_array(np.inf, ELEMENTS["f16"])))
    with pytest.raises(InputError, match="bit pattern is too long for f16"):
        parse_module(text.replace("0x7c00", "0x17c00"))
    integers = text.replace("0x7c00", "0x1F").replace("f16", "i32")
    assert Interpreter(parse_module(integers)).call("main", {})["result0"].item() == 31


def test_mlir_tools_read_and_write_our_constants(tmp_path: Path, iree_opt: str) -> None:
    numbers = [np.nan, -np.inf, 123456789.0, 1 / 3]
    module = module_of([], lambda: nn.ConstantOp.from_array(numbers, ELEMENTS["f32"]))
    path = tmp_path / "m.mlir"
    path.write_text(print_module(module))
    command = [iree_opt, "--allow-unregistered-dialect", "--mlir-print-op-generic", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    got = Interpreter(parse_module(done.stdout), precision="f32").call("main", {})["result0"]
    np.testing.assert_array_equal(got, np.array(numbers, np.float32))


# Conversions


@pytest.mark.parametrize("source", [name for name in ELEMENTS if name != "index"])
@pytest.mark.parametrize("to", [name for name in ELEMENTS if name != "index"])
def test_small_numbers_survive_every_conversion(source: str, to: str) -> None:
    numbers = [0, 1, 1] if "i1" in (source, to) else [0, 1, 100]
    got = run(lambda x: nn.CastOp(x, ELEMENTS[to]), (source, numbers))
    assert got.tolist() == numbers
    assert run(lambda x: nn.CastOp(x, ELEMENTS[to]), (source, 1)).item() == 1
    assert run(lambda x: nn.CastOp(x, ELEMENTS[to]), (source, np.zeros((0, 2)))).size == 0


def test_casts_to_half_round_in_every_precision() -> None:
    third = np.array([1 / 3, 70000.0], np.float32)
    half = run(lambda x: nn.CastOp(x, ELEMENTS["f16"]), ("f32", third))
    assert half.tolist() == [float(np.float16(1 / 3)), math.inf]
    ties = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-40, -(1 + 2**-8 + 2**-40), np.inf, np.nan]
    brain = run(lambda x: nn.CastOp(x, ELEMENTS["bf16"]), ("f64", ties))
    np.testing.assert_array_equal(brain, [1.0, 1 + 2**-6, 1 + 2**-7, -(1 + 2**-7), np.inf, np.nan])
    plain = run(nn.NegOp, ("f16", third))
    np.testing.assert_array_equal(plain, -third)


def test_casts_to_integers_truncate_and_wrap() -> None:
    to = {name: (lambda x, name=name: nn.CastOp(x, ELEMENTS[name])) for name in ELEMENTS}
    assert run(to["i32"], ("f32", [1.9, -1.9])).tolist() == [1, -1]
    assert run(to["ui8"], ("f32", [257.5, -1.5])).tolist() == [1, 255]
    assert run(to["i8"], ("i64", [200, -129])).tolist() == [-56, 127]
    assert run(to["ui64"], ("f64", [1e19, 3.7])).tolist() == [10**19, 3]
    assert run(to["i1"], ("f32", [0.5, -0.0, np.nan, 2])).tolist() == [True, False, True, True]
    assert run(to["i1"], ("i64", [256, 0])).tolist() == [True, False]
    assert run(to["i64"], ("f64", 2.0**53)).item() == 2**53


def test_cast_keeps_the_shape() -> None:
    assert nn.CastOp(value("f32", 2, 3), ELEMENTS["ui16"]).result.type == TensorType(ELEMENTS["ui16"], [2, 3])
