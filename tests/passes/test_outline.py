"""Repeats, families, and outlining of whole models."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import SMOLLM2, Shape, llama, run_pass
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from pimc.ir import nn
from pimc.ir.aliases import aliases_of
from pimc.ir.context import verify_module
from pimc.passes.families import Family, family_of
from pimc.passes.outline import OutlinePass
from pimc.passes.repeats import MAX_REPEATS, Repeat, _repeats, find_repeats


def functions(module: ModuleOp) -> dict[str, func.FuncOp]:
    return {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}


def test_repeats_of_a_chain_grow_with_its_length() -> None:
    """A chain of like operations has as many repeats as the square of its length; the best are given."""
    counts = {length: len(list(_repeats(np.zeros(length, np.int64), 1, 64))) for length in (8192, 16384)}
    assert counts[16384] < 2.5 * counts[8192]
    assert len(find_repeats("a" * 3000)) == MAX_REPEATS


def test_find_repeats() -> None:
    assert find_repeats("abc") == []
    assert find_repeats("xababay")[0] == Repeat(1, 2, 2)
    assert find_repeats("x" + "abc" * 5 + "y")[0] == Repeat(1, 3, 5)
    assert Repeat(2, 3, 4) in find_repeats("x" + "abc" * 5 + "y")


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["a.0.w", "a.1.w"], Family("a.*.w", (0, 1))),
        (["h0.1.w", "h0.2.w", "h0.3.w"], Family("h0.*.w", (1, 2, 3))),
        (["layer9w", "layer10w"], Family("layer*w", (9, 10))),
        (["a.00.w", "a.01.w"], None),
        (["a.0.w0", "a.1.w1"], None),
        (["a", "b"], None),
        (["a.0.w", "a.0.w"], None),
    ],
)
def test_family_of(names: list[str], family: Family | None) -> None:
    assert family_of(names) == family


def test_thirty_layers() -> None:
    module = llama(SMOLLM2)
    run_pass(module, OutlinePass())
    verify_module(module)
    found = functions(module)
    assert list(found) == ["prefill_layer", "prefill", "decode_layer", "decode"]
    assert sum(1 for _ in module.walk()) < 100
    note = found["decode"].attributes["pim.outline"]
    assert "30 layers of 18 operations in @decode_layer" in str(note)


@pytest.mark.parametrize("prefix", ["h.{}.block", "l{}", "model.decoder.layers.{}"])
def test_names_of_any_form(prefix: str) -> None:
    module = llama(Shape(prefix=prefix))
    run_pass(module, OutlinePass())
    assert "decode_layer" in functions(module)
    text = str(module)
    assert prefix.replace("{}", "*") in text
    assert 'name = "' + prefix.format(1) not in text


def test_names_without_family_get_aliases_that_count() -> None:
    module = llama(Shape(prefix="block{:02d}"))
    run_pass(module, OutlinePass())
    assert list(functions(module)) == ["prefill_layer", "prefill", "decode_layer", "decode"]
    names = {op.weight_name.data for op in module.walk() if isinstance(op, nn.ParamOp)}
    aliases = aliases_of(module)
    assert aliases["block00.mlp.up_proj.weight@2"] == "block02.mlp.up_proj.weight"
    assert {name.rpartition("@")[0] + "@*" for name in aliases} == {name for name in names if "*" in name}


def test_one_layer_stays() -> None:
    module = llama(Shape(layers=1))
    before = str(module)
    run_pass(module, OutlinePass())
    del module.attributes["pim.stage"]
    assert str(module) == before
