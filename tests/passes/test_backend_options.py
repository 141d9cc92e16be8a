"""Options of emit and link: source locations, and shared streams."""

from __future__ import annotations

from pimc.ir.context import parse_module
from pimc.isa.program import Program
from pimc.passes.base import PassContext
from pimc.passes.pipeline import PassManager, parse_pipeline
from pimc.targets import load_target

TEXT = """
sram.program "main" cores = [0, 1] {
  %a = sram.const 5 loc("somewhere":3:0)
  %b = sram.const 7 loc("somewhere":3:0)
  %c = sram.alloc "x" {bytes = 4 : i64, memory = "activation", align = 4 : i64} loc("somewhere":3:0)
  %d = sram.address %c + 0 loc("somewhere":3:0)
  %e = sram.add %a, %b loc("somewhere":3:0)
  sram.sw %e, %d, imm = 0 loc("somewhere":3:0)
} loc("somewhere":3:0)
"""


def linked(pipeline: str) -> Program:
    module, target = parse_module(TEXT), load_target("hpim")
    program = PassManager(parse_pipeline(pipeline)).run(module, PassContext(machine=target)).program
    assert program is not None
    return program


def test_locations_can_be_left_out() -> None:
    kept, bare = linked("allocate,emit,link"), linked("allocate,emit{locations=false},link")
    (name,) = kept.code
    assert (kept.code[name] == bare.code[name]).all()
    assert kept.locations[name].at(0) == "somewhere:3"
    assert bare.locations[name].at(0) is None


def test_equal_streams_can_be_kept_apart() -> None:
    shared, apart = linked("allocate,emit,link"), linked("allocate,emit,link{share=false}")
    assert len(set(shared.entries["main"].cores.values())) == 1
    assert len(set(apart.entries["main"].cores.values())) == 2
    first, second = apart.entries["main"].cores.values()
    assert (apart.code[first] == apart.code[second]).all()
