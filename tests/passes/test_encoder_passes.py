"""An encoder without a cache through the passes: the interpreter gives the same after each."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import floats, ids, module_of, weight
from tiny_models import run_pass
from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue

from pimc.diagnostics import InputError
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn, pim
from pimc.ir.context import parse_module, print_module, verify_module
from pimc.ir.interpreter import Interpreter
from pimc.passes.annotate import AnnotatePass
from pimc.passes.layout import LayoutPass
from pimc.passes.legalize import LegalizePass
from pimc.passes.partition import PartitionPass
from pimc.passes.place import PlacePass
from pimc.passes.schedule import SchedulePass
from pimc.passes.tile import TilePass

PASSES = (LegalizePass(), AnnotatePass(), PlacePass(), PartitionPass(), LayoutPass(), TilePass(), SchedulePass())
WIDTH, INNER, TOKENS = 24, 40, 7
WEIGHTS = {name: floats(WIDTH, WIDTH) for name in "qo"} | {name: floats(WIDTH // 3, WIDTH) for name in "kv"}
WEIGHTS |= {"f": floats(INNER, WIDTH), "g": floats(WIDTH, INNER), "table": floats(900, WIDTH), "shift": floats(2, 3)}


def encoder(tokens: SSAValue, mask: SSAValue) -> list[SSAValue]:
    """Rows of a table, attention with 3 query heads a KV head under a mask, a feed-forward network."""
    x = nn.GatherOp(weight("table", WEIGHTS["table"]), tokens, 0)
    q, k, v = (nn.LinearOp(x, weight(name, WEIGHTS[name])) for name in "qkv")
    mixed = nn.AttentionFullOp(q, k, v, mask, heads=3, kv_heads=1, head_dim=8, scale=0.35)
    hidden = nn.AddOp(x, nn.LinearOp(mixed, weight("o", WEIGHTS["o"])))
    inner = nn.ReluOp(nn.LinearOp(hidden, weight("f", WEIGHTS["f"])))
    return [nn.AddOp(hidden, nn.LinearOp(inner, weight("g", WEIGHTS["g"]))).result, weight("shift", WEIGHTS["shift"])]


def test_passes_keep_the_meaning() -> None:
    arrays = [ids(-900, 900, 1, TOKENS), floats(1, 1, 1, TOKENS)]
    inputs = {"arg0": arrays[0], "arg1": arrays[1]}
    module, store = module_of(arrays, encoder), ModelWeights(WEIGHTS)
    expected = list(Interpreter(module, store, "f32").call("main", inputs).values())
    for step in PASSES:
        run_pass(module, step)
        verify_module(module)
        got = list(Interpreter(module, store, "f32").call("main", inputs).values())
        for have, want in zip(got, expected, strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-3, err_msg=step.name)
    assert any(isinstance(op, pim.AttentionFullOp) for op in module.walk())
    assert any(isinstance(op, pim.EmbeddingOp) and op.wrap is not None for op in module.walk())
    text = print_module(module)
    assert print_module(parse_module(text)) == text


def test_no_operand_of_attention_is_whole_on_every_core() -> None:
    module = module_of([ids(0, 9, 1, TOKENS), floats(1, 1, 1, TOKENS)], encoder)
    for step in PASSES[:4]:
        run_pass(module, step)
    (attention,) = (op for op in module.walk() if isinstance(op, pim.AttentionFullOp))
    assert all(pim.layout_of(value.type) is not None for value in (attention.q, attention.k, attention.v))
    reason = attention.attributes["pim.partition"]
    assert isinstance(reason, StringAttr)
    assert "1 sequences, 1 KV heads and 1 query rows a core, on 7 cores" in reason.data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kv_heads = 1 : i64|kv_heads = 2 : i64", "do not share"),
        ("head_dim = 8 : i64|head_dim = 4 : i64", "heads of 4"),
    ],
)
def test_heads_must_fit(change: str, message: str) -> None:
    module = module_of([ids(0, 9, 1, TOKENS), floats(1, 1, 1, TOKENS)], encoder)
    for step in PASSES[:4]:
        run_pass(module, step)
    old, new = change.split("|")
    with pytest.raises(InputError, match=message):
        parse_module(print_module(module).replace(old, new))
