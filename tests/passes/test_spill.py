"""Values in DRAM and loops over rows: in the interpreter as before, on the machine as PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp

import pimc
from pimc.diagnostics import PimcError
from pimc.ir import pim
from pimc.ir.context import parse_module, print_module
from pimc.ir.interpreter import Interpreter
from pimc.passes.base import PassContext
from pimc.passes.held import local_bytes
from pimc.passes.pipeline import PassManager, parse_pipeline
from pimc.runtime import Executable
from pimc.targets import load_target

#: |result - PyTorch fp32| where the root mean square is near 1: docs/numerics.md.
BOUND = 1 / 64
ROWS = "#pim.layout<dram, 0 : [[0, 0, 4, 2]]>"
TILE = "tensor<4x64xf16, #pim.layout<0 : [[0, 0, 4, 1]]>>"


def little(kilobytes: int) -> tuple[str, ...]:
    """A target with so much local memory."""
    return (f"memory.activation.bytes={kilobytes * 1024}", f"memory.temp.base={kilobytes * 1024}")


def mlp(layers: int, width: int, inner: int, *shape: int) -> tuple[object, object, np.ndarray]:
    """Blocks of a norm, two linear layers and a residual; an input, and what PyTorch makes of it."""
    import torch

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.LayerNorm(width)
            self.up, self.down = torch.nn.Linear(width, inner), torch.nn.Linear(inner, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))

    torch.manual_seed(0)
    model = torch.nn.Sequential(*(Block() for _ in range(layers))).eval()
    x = torch.randn(*shape, width)
    with torch.no_grad():
        return model, x, model(x).numpy()


def compiled(model: object, x: object, overrides: Sequence[str]) -> Executable:
    return pimc.compile(model, (x,), overrides=overrides)


@pytest.mark.parametrize(
    ("layers", "inner", "shape", "kilobytes"),
    [
        (1, 256, (256,), 16),  # 8 rows a core
        (1, 256, (250,), 16),  # the last core has fewer rows
        (3, 512, (512,), 20),  # in a function that a loop over layers calls
        (2, 1024, (4, 128), 48),  # a batch of sequences
    ],
)
def test_an_mlp_in_little_memory(layers: int, inner: int, shape: tuple[int, ...], kilobytes: int) -> None:
    import torch

    model, x, expected = mlp(layers, 128, inner, *shape)
    assert isinstance(x, torch.Tensor)
    assert np.abs(compiled(model, x, little(kilobytes))(x.numpy()) - expected).max() < BOUND


def test_the_program_does_not_grow_with_the_rows() -> None:
    sizes = set()
    for rows in (512, 1024):
        model, x, _ = mlp(1, 128, 512, rows)
        program = compiled(model, x, little(24 if rows == 512 else 28)).program
        sizes.add(program.decoded[program.entries["main"].cores[0]].op.size)
    small, large = min(sizes), max(sizes)
    assert large - small < small // 10  # other blocks, no more of them


@pytest.mark.slow
def test_an_mlp_of_4096_rows() -> None:
    import torch

    model, x, expected = mlp(1, 1024, 4096, 4096)
    assert isinstance(x, torch.Tensor)
    assert np.abs(compiled(model, x, ())(x.numpy()) - expected).max() < BOUND


def test_a_value_that_is_needed_late_goes_to_dram() -> None:
    import torch

    class Late(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = torch.nn.Linear(64, 2048), torch.nn.Linear(2048, 64), torch.nn.Linear(64, 2048)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = torch.softmax(x @ x.transpose(0, 1) / 8, -1)
            return self.b(self.a(x) * torch.sigmoid(self.c(scores @ x))) + x

    torch.manual_seed(0)
    model, x = Late().eval(), torch.randn(96, 64)
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(compiled(model, x, little(64))(x.numpy()) - expected).max() < BOUND


NORM = f"""
func.func @f(%x: tensor<8x64xf16>, %w: tensor<64xf16>) -> tensor<8x64xf16, #pim.layout<0 : [[0, 0, 4, 2]]>> {{
  %a = pim.take %x : tensor<8x64xf16> -> tensor<8x64xf16, #pim.layout<0 : [[0, 0, 4, 2]]>>
  %s = pim.spill %a : tensor<8x64xf16, #pim.layout<0 : [[0, 0, 4, 2]]>> -> tensor<8x64xf16, {ROWS}>
  %e = pim.empty : tensor<8x64xf16, {ROWS}>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %r = scf.for %i = %c0 to %c2 step %c1 iter_args(%y = %e) -> (tensor<8x64xf16, {ROWS}>) {{
    %t = pim.read %s[%i] {{dim = 0 : i64, rows = array<i64: 4, 2>}} : tensor<8x64xf16, {ROWS}> -> {TILE}
    %u = "nn.rms_norm"(%t, %w) <{{eps = 1.0e-5 : f32}}> : ({TILE}, tensor<64xf16>) -> {TILE}
    %y1 = pim.write %u, %y[%i] {{dim = 0 : i64, rows = array<i64: 4, 2>}}
      : {TILE}, tensor<8x64xf16, {ROWS}> -> tensor<8x64xf16, {ROWS}>
    scf.yield %y1 : tensor<8x64xf16, {ROWS}>
  }}
  %o = pim.fill %r : tensor<8x64xf16, {ROWS}> -> tensor<8x64xf16, #pim.layout<0 : [[0, 0, 4, 2]]>>
  func.return %o : tensor<8x64xf16, #pim.layout<0 : [[0, 0, 4, 2]]>>
}}
"""


def test_a_loop_over_rows_in_the_interpreter() -> None:
    module = parse_module(NORM)
    assert print_module(parse_module(print_module(module))) == print_module(module)
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float16)
    inputs = dict(zip(("arg0", "arg1"), (x, np.ones(64, np.float16)), strict=True))
    (found,) = Interpreter(module).call("f", inputs).values()
    expected = x / np.sqrt((x.astype(np.float32) ** 2).mean(-1, keepdims=True) + 1e-5)
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dim = 0 : i64, rows = array<i64: 4, 2>} : ", "dim = 0 : i64, rows = array<i64: 2, 4>} : ", "is not cut into"),
        ('"nn.rms_norm"(%t', '"nn.rms_norm"(%s', "in dram, not in local memory"),
        (ROWS, "#pim.layout<host, 0 : [[0, 0, 4, 2]]>", "one of local, dram"),
    ],
)
def test_what_is_wrong_in_a_loop_over_rows(old: str, new: str, message: str) -> None:
    text = NORM.replace(old, new)
    if "nn.rms_norm" in old:
        text = text.replace(f"({TILE}, tensor<64xf16>)", f"(tensor<8x64xf16, {ROWS}>, tensor<64xf16>)")
    with pytest.raises(PimcError, match=message):
        parse_module(text)


def passes(module: ModuleOp, text: str, overrides: Sequence[str] = ()) -> ModuleOp:
    PassManager(parse_pipeline(text)).run(module, PassContext(machine=load_target("hpim", overrides)))
    return module


CHAIN = """
func.func @f(%x: tensor<96x256xf16>) -> tensor<96x256xf16> {
  %h = "nn.gelu"(%x) <{approximate = "none"}> : (tensor<96x256xf16>) -> tensor<96x256xf16>
  %s = "nn.silu"(%h) : (tensor<96x256xf16>) -> tensor<96x256xf16>
  %t = "nn.transpose"(%s) <{permutation = array<i64: 1, 0>}> : (tensor<96x256xf16>) -> tensor<256x96xf16>
  %u = "nn.transpose"(%t) <{permutation = array<i64: 1, 0>}> : (tensor<256x96xf16>) -> tensor<96x256xf16>
  %y = "nn.add"(%u, %h) : (tensor<96x256xf16>, tensor<96x256xf16>) -> tensor<96x256xf16>
  func.return %y : tensor<96x256xf16>
}
"""


def test_the_meaning_stays() -> None:
    x = np.random.default_rng(0).standard_normal((96, 256)).astype(np.float16)
    before, after = parse_module(CHAIN), passes(parse_module(CHAIN), "layout,spill", little(80))
    assert any(isinstance(op, scf.ForOp) for op in after.walk())
    (expected,) = Interpreter(before).call("f", {"arg0": x}).values()
    (found,) = Interpreter(after).call("f", {"arg0": x}).values()
    assert np.array_equal(found, expected)


def test_what_fits_stays_as_it_is() -> None:
    before = passes(parse_module(CHAIN), "layout")
    text = print_module(before)
    after = passes(before, "spill")
    assert print_module(after) == text
    spilled = [op for op in after.walk() if isinstance(op, pim.SpillOp)]
    assert not spilled


def test_a_value_in_dram_takes_no_local_memory() -> None:
    module = parse_module(NORM)
    (spill,) = (op for op in module.walk() if isinstance(op, pim.SpillOp))
    assert (local_bytes(spill.input), local_bytes(spill.output)) == (2 * 64 * 2, 0)


TWO = """
func.func @f(%x: tensor<128x128xf16>) -> tensor<128x128xf16> {
  %a = "nn.transpose"(%x) <{permutation = array<i64: 1, 0>}> : (tensor<128x128xf16>) -> tensor<128x128xf16>
  %b = "nn.matmul"(%x, %x) : (tensor<128x128xf16>, tensor<128x128xf16>) -> tensor<128x128xf16>
  %c = "nn.matmul"(%x, %b) : (tensor<128x128xf16>, tensor<128x128xf16>) -> tensor<128x128xf16>
  %d = "nn.matmul"(%b, %c) : (tensor<128x128xf16>, tensor<128x128xf16>) -> tensor<128x128xf16>
  %y = "nn.matmul"(%d, %b) : (tensor<128x128xf16>, tensor<128x128xf16>) -> tensor<128x128xf16>
  func.return %y : tensor<128x128xf16>
}
"""


@pytest.mark.parametrize("kilobytes", [40, 80, 110, 140, 200])
def test_an_operation_that_does_not_fit_by_itself_is_left_alone(kilobytes: int) -> None:
    """Two operands that are read back for one operation do not push each other out for ever."""
    after = passes(parse_module(TWO), "layout,spill", little(kilobytes))
    fills = [op for op in after.walk() if isinstance(op, pim.FillOp)]
    assert len(fills) < 8
