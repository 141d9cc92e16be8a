"""What local memory holds beside an operation: through calls, loops, and the part of a value that a core has."""

from __future__ import annotations

from pimc.ir.context import parse_module
from pimc.passes.held import Held

MODULE = """
func.func private @layer(%i: index, %x: tensor<4x64xf16>, %m: tensor<4x8xf16>) -> tensor<4x64xf16> {
  %y = "nn.gelu"(%x) <{approximate = "none"}> : (tensor<4x64xf16>) -> tensor<4x64xf16>
  %z = "nn.add"(%y, %x) : (tensor<4x64xf16>, tensor<4x64xf16>) -> tensor<4x64xf16>
  func.return %z : tensor<4x64xf16>
}
func.func @main(%x: tensor<4x64xf16>, %m: tensor<4x8xf16>) -> (tensor<4x64xf16>, tensor<64x64xf16>) {
  %lower = arith.constant 0 : index
  %upper = arith.constant 2 : index
  %step = arith.constant 1 : index
  %w = "nn.param"() <{name = "vector"}> : () -> tensor<64xf16>
  %late = "nn.constant"() <{value = dense<1.0> : tensor<64x64xf16>}> : () -> tensor<64x64xf16>
  %r = scf.for %i = %lower to %upper step %step iter_args(%c = %x) -> (tensor<4x64xf16>) {
    %o = func.call @layer(%i, %c, %m) : (index, tensor<4x64xf16>, tensor<4x8xf16>) -> tensor<4x64xf16>
    scf.yield %o : tensor<4x64xf16>
  }
  %n = "nn.rms_norm"(%r, %w) <{eps = 1.0e-5 : f32}> : (tensor<4x64xf16>, tensor<64xf16>) -> tensor<4x64xf16>
  func.return %n, %late : tensor<4x64xf16>, tensor<64x64xf16>
}
"""


def test_what_callers_need_behind_a_call_is_held_throughout() -> None:
    module = parse_module(MODULE)
    held = Held.of(module)
    ops = {op.name: op for op in module.walk()}
    row, mask, vector, late = 4 * 64 * 2, 4 * 8 * 2, 64 * 2, 64 * 64 * 2
    # x and y; the mask is the callee's operand once more in the next iteration; what stands behind the loop
    assert held.bytes(ops["nn.gelu"]) == 2 * row + mask + vector + late
    assert held.bytes(ops["nn.add"]) == 3 * row + mask + vector + late
    assert held.bytes(ops["nn.rms_norm"]) == 2 * row + vector + late
