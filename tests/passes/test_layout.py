"""The memory map: no overlap, shared weights once, errors that name the tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from tiny_models import SMOLLM2, Shape, llama, run_pass
from xdsl.dialects.builtin import ModuleOp

from pimc.diagnostics import TargetError, UsageError
from pimc.ir import pim
from pimc.ir.memory_map import MemoryMap
from pimc.passes.layout import LayoutPass, rows_space
from pimc.passes.machine import Machine
from pimc.passes.outline import OutlinePass
from pimc.passes.partition import PartitionPass


def laid_out(
    shape: Shape, layout: LayoutPass | None = None, outline: bool = True, overrides: Sequence[str] = ()
) -> ModuleOp:
    module = llama(shape)
    for step in (*([OutlinePass()] if outline else []), PartitionPass(), layout or LayoutPass()):
        run_pass(module, step, overrides=overrides)
    return module


def extents(memory: MemoryMap) -> list[tuple[int, int, str]]:
    """(first byte, last byte + 1, name) of every copy of everything in a tile."""
    space = rows_space(Machine.load("hpim"))
    found: list[tuple[int, int, str]] = []
    for g in memory.gemv:
        for layer in range(max(1, g.layers)):
            row = g.layout.row_base + layer * g.layout.row_stride
            found.append((row * space, (row + g.layout.rows) * space, g.weights[0]))
    for r in memory.linear:
        for layer in range(max(1, r.layers.data)):
            base = r.region.address(layer)
            found.append((base, base + r.size.data, r.tensor.data))
    return sorted(found)


@pytest.mark.parametrize("shape", [Shape(), Shape(biases=True), SMOLLM2])
@pytest.mark.parametrize("outline", [True, False])
def test_nothing_overlaps(shape: Shape, outline: bool) -> None:
    memory = MemoryMap.of(laid_out(shape, outline=outline))
    found = extents(memory)
    for (_, end, first), (start, _, second) in pairwise(found):
        assert end <= start, f"{first} overlaps {second}"
    assert found[-1][1] <= memory.rows * rows_space(Machine.load("hpim"))


def test_prefill_and_decode_share() -> None:
    module = laid_out(Shape())
    layouts: dict[tuple[object, ...], set[object]] = {}
    for op in module.walk():
        if isinstance(op, pim.MatrixOp):
            names = tuple(w.owner.weight_name.data for w in op.weights)
            layouts.setdefault(names, set()).add(op.layout)
    assert len(layouts) == 5
    assert all(len(found) == 1 for found in layouts.values())
    assert len(MemoryMap.of(module).gemv) == 5


def test_layers_have_one_stride() -> None:
    memory = MemoryMap.of(laid_out(SMOLLM2))
    strides = {g.layout.row_stride for g in memory.gemv if g.layers}
    assert len(strides) == 1
    assert {g.layers for g in memory.gemv if g.layers} == {30}
    vectors = {r.layer_stride.data for r in memory.linear if r.layers.data and r.kind.data == "replicated"}
    assert vectors == {strides.pop() * rows_space(Machine.load("hpim"))}


def test_caches_lie_behind_the_image() -> None:
    memory = MemoryMap.of(laid_out(SMOLLM2))
    start = memory.image_rows * rows_space(Machine.load("hpim"))
    caches = [r for r in memory.linear if r.kind.data == "cache"]
    assert [(r.tensor.data, r.round.data, r.rows.data) for r in caches] == [
        ("k_cache", 0, 256),
        ("v_cache", 0, 256),
    ]
    assert all(r.base.data >= start for r in caches)


def test_attribute_round_trip() -> None:
    module = laid_out(Shape())
    memory = MemoryMap.of(module)
    assert memory.attribute() == module.attributes["pim.memory"]


def test_a_model_that_does_not_fit_names_the_tensor() -> None:
    rows = MemoryMap.of(laid_out(SMOLLM2)).rows
    with pytest.raises(TargetError, match="layer 29 does not fit"):
        laid_out(SMOLLM2, overrides=["hbm.rows=120"])
    with pytest.raises(TargetError, match="@v_cache does not fit"):
        laid_out(SMOLLM2, overrides=[f"hbm.rows={rows - 1}"])


def test_an_impossible_ksplit() -> None:
    with pytest.raises(UsageError, match="ksplit 3"):
        laid_out(Shape(), LayoutPass(ksplit=3))
