"""Ranges of integer inputs, derived from what a program indexes with them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tiny_models import LLAMA, Shape, llama, run_pass
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from pimc.ir import pim
from pimc.ir.context import parse_module
from pimc.ir.input_ranges import input_ranges
from pimc.passes.annotate import AnnotatePass
from pimc.passes.outline import OutlinePass
from pimc.passes.partition import PartitionPass
from pimc.passes.place import PlacePass


def functions_of(module: ModuleOp) -> Mapping[str, func.FuncOp]:
    return {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, func.FuncOp)}


def ranges_of(body: str, inputs: str, helpers: str = "") -> list[tuple[int, int] | None]:
    """Ranges of the inputs of ``@main``, whose ``body`` ends with ``%r`` of 4 f16."""
    returned = "func.return %r : tensor<1x4xf16>"
    text = f"module {{ {helpers} func.func @main({inputs}) -> tensor<1x4xf16> {{ {body} {returned} }} }}"
    functions = functions_of(parse_module(text))
    return input_ranges(functions["main"], functions)


def test_a_language_model() -> None:
    """Token ids by the vocabulary, positions by the cache less the tokens written, the length by the chunk."""
    functions = functions_of(llama())
    last, chunk = LLAMA.max_seq - 1, LLAMA.chunk
    assert input_ranges(functions["decode"], functions) == [(0, LLAMA.vocab - 1), (0, last)]
    assert input_ranges(functions["prefill"], functions) == [(0, LLAMA.vocab - 1), (0, last + 1 - chunk), (1, chunk)]


def test_a_partitioned_language_model() -> None:
    """The same, where a chunk's rows are cut over the cores."""
    shape = Shape(layers=1, hidden=576, heads=9, kv_heads=3, ffn=512, chunk=16)
    module = llama(shape)
    run_pass(module, OutlinePass(), AnnotatePass(), PlacePass(), PartitionPass())
    functions = functions_of(module)
    assert any(isinstance(op, pim.SelectTokenOp) for op in module.walk())
    assert input_ranges(functions["prefill"], functions) == [(0, shape.vocab - 1), (0, shape.max_seq - 16), (1, 16)]


IDS = "%ids: tensor<1x2xi32>"
TABLE = '%t = "nn.param"() <{name = "t"}> : () -> tensor<10x4xf16>'
TAKE = '%r = "nn.reduce_sum"(%e) <{axes = array<i64: 1>, keepdims = false}> : (tensor<1x2x4xf16>) -> tensor<1x4xf16>'
EMBED = f'%e = "nn.embedding"(%t, %i) : (tensor<10x4xf16>, tensor<1x2xi32>) -> tensor<1x2x4xf16> {TAKE}'


@pytest.mark.parametrize(
    ("body", "inputs", "expected"),
    [
        (f"{TABLE} {EMBED.replace('%i', '%ids')}", IDS, (0, 9)),
        (
            f'{TABLE} %e = "nn.gather"(%t, %ids) <{{axis = 0 : i64}}> '
            f": (tensor<10x4xf16>, tensor<1x2xi32>) -> tensor<1x2x4xf16> {TAKE}",
            IDS,
            (-10, 9),
        ),
        (
            f'{TABLE} %i = "nn.reshape"(%ids) : (tensor<2xi32>) -> tensor<1x2xi32> {EMBED}',
            "%ids: tensor<2xi32>",
            (0, 9),
        ),
        (
            f'{TABLE} %i = "nn.cast"(%ids) : (tensor<1x2xi64>) -> tensor<1x2xi32> {EMBED}',
            "%ids: tensor<1x2xi64>",
            (0, 9),
        ),
        (
            f'{TABLE} %i = "nn.positions"(%ids) <{{count = 2 : i64}}> : (tensor<1xi32>) -> tensor<1x2xi32> {EMBED}',
            "%ids: tensor<1xi32>",
            (0, 8),
        ),
        (
            f'{TABLE} %i = "nn.add"(%ids, %ids) : (tensor<1x2xi32>, tensor<1x2xi32>) -> tensor<1x2xi32> {EMBED}',
            IDS,
            None,
        ),
        (
            f'{TABLE} %i = "nn.slice"(%ids) <{{starts = array<i64: 0, 1>, stops = array<i64: 1, 3>, '
            f"steps = array<i64: 1, 1>}}> : (tensor<1x3xi32>) -> tensor<1x2xi32> {EMBED}",
            "%ids: tensor<1x3xi32>",
            None,
        ),
    ],
    ids=["embedding", "gather counts from the end", "reshape", "cast", "positions", "computed", "a part"],
)
def test_what_bounds_an_input(body: str, inputs: str, expected: tuple[int, int] | None) -> None:
    assert ranges_of(body, inputs) == [expected]


def test_through_a_call_and_the_narrower_of_two() -> None:
    helper = (
        f"func.func private @rows(%i: tensor<1x2xi32>) -> tensor<1x4xf16> "
        f"{{ {TABLE} {EMBED} func.return %r : tensor<1x4xf16> }}"
    )
    body = (
        '%u = "nn.param"() <{name = "u"}> : () -> tensor<6x4xf16> '
        f"{EMBED.replace('%t', '%u').replace('%i', '%ids').replace('10x4', '6x4').replace('%r', '%a')} "
        "%b = func.call @rows(%ids) : (tensor<1x2xi32>) -> tensor<1x4xf16> "
        '%r = "nn.add"(%a, %b) : (tensor<1x4xf16>, tensor<1x4xf16>) -> tensor<1x4xf16>'
    )
    assert ranges_of(body, IDS, helper) == [(0, 5)]
