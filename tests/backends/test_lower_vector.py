"""Lowerings of vector operators, alone in a module: the simulated program against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from pimc.backends.link import link_program
from pimc.ir.context import parse_module
from pimc.ir.weights import InMemoryWeights
from pimc.isa.validate import validate_program
from pimc.passes.base import PassContext
from pimc.passes.pipeline import PassManager, parse_pipeline
from pimc.runtime_sim import Machine
from pimc.targets import load_target

ROWS, WIDTH = 3, 48
X = f"tensor<1x{ROWS}x{WIDTH}xf16>"
C = "tensor<f16>"
TABLE = (np.random.default_rng(0).standard_normal((8, WIDTH)) + 0.25).astype(np.float16)


def simulate(body: str) -> np.ndarray:
    """Rows 2, 5 and 1 of the table through ``body`` (from %x to %y), the last of the rows; [WIDTH] f32."""
    text = f"""
func.func @main(%ids: tensor<1x{ROWS}xi32> {{pimc.name = "ids"}}, %n: tensor<1xi32> {{pimc.name = "n"}})
    -> tensor<1x1x{WIDTH}xf16> {{
  %t = "nn.param"() <{{name = "table"}}> : () -> tensor<8x{WIDTH}xf16>
  %x = "nn.embedding"(%t, %ids) : (tensor<8x{WIDTH}xf16>, tensor<1x{ROWS}xi32>) -> {X}
  {body}
  %last = "nn.select_token"(%y, %n) : ({X}, tensor<1xi32>) -> tensor<1x1x{WIDTH}xf16>
  func.return %last : tensor<1x1x{WIDTH}xf16>
}}"""
    target = load_target("hpim")
    weights = InMemoryWeights({"table": TABLE})
    module = parse_module(text)
    passes = parse_pipeline("annotate,place,partition,layout,tile,schedule,lower,allocate,emit")
    PassManager(passes).run(module, PassContext(machine=target, weights=weights))
    program = validate_program(link_program(module, weights, target))
    inputs = {"ids": np.array([[2, 5, 1]], np.int32), "n": np.array([ROWS], np.int32)}
    (output,) = Machine(program, target).run("main", inputs).outputs.values()
    return np.asarray(output, np.float32).reshape(-1)


def constant(name: str, value: float) -> str:
    return f'%{name} = "nn.constant"() <{{value = dense<{value:e}> : {C}}}> : () -> {C}\n'


def binary(op: str, left: str, right: str) -> str:
    types = ", ".join(C if name == "%c" else X for name in (left, right))
    return f'%y = "nn.{op}"({left}, {right}) : ({types}) -> {X}'


V = TABLE[1].astype(np.float32)


@pytest.mark.parametrize(
    ("op", "left", "right", "expected"),
    [
        ("add", "%x", "%c", V + 1.5),
        ("sub", "%x", "%c", V - 1.5),
        ("sub", "%c", "%x", 1.5 - V),
        ("mul", "%c", "%x", 1.5 * V),
        ("div", "%x", "%c", V / 1.5),
        ("div", "%c", "%x", 1.5 / V),
        ("maximum", "%x", "%c", np.maximum(V, 1.5)),
        ("minimum", "%c", "%x", np.minimum(V, 1.5)),
    ],
)
def test_constant_operand(op: str, left: str, right: str, expected: np.ndarray) -> None:
    got = simulate(constant("c", 1.5) + binary(op, left, right))
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 4.0, -1.0])
def test_power(power: float) -> None:
    got = simulate(constant("c", power) + binary("pow", "%x", "%c"))
    np.testing.assert_allclose(got, V**power, rtol=4e-3, atol=1e-6)


def test_roots() -> None:
    magnitude = f'%a = "nn.abs"(%x) : ({X}) -> {X}\n'
    body = magnitude + constant("c", -0.5) + f'%y = "nn.pow"(%a, %c) : ({X}, {C}) -> {X}'
    np.testing.assert_allclose(simulate(body), np.abs(V) ** -0.5, rtol=2e-3)


def test_softmax() -> None:
    got = simulate(f'%y = "nn.softmax"(%x) <{{axis = -1 : i64}}> : ({X}) -> {X}')
    expected = np.exp(V - V.max())
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=4e-3)


def test_other_powers() -> None:
    got = simulate(f'%a = "nn.abs"(%x) : ({X}) -> {X}\n' + constant("c", 2.5) + binary("pow", "%a", "%c"))
    np.testing.assert_allclose(got, np.abs(V) ** 2.5, rtol=2e-3, atol=1e-6)


def test_tables_come_with_the_image() -> None:
    table = f'%c = "nn.constant"() <{{value = dense<1.5> : tensor<{WIDTH}xf16>}}> : () -> tensor<{WIDTH}xf16>\n'
    got = simulate(table + f'%y = "nn.add"(%x, %c) : ({X}, tensor<{WIDTH}xf16>) -> {X}')
    np.testing.assert_allclose(got, V + 1.5, rtol=2e-3, atol=1e-6)
