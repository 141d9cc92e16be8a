"""Attention over caches of any length on the machine, against PyTorch: blocks of slots and of query rows, windows,
softcaps, slopes, biases by distance, shared heads.

Machines of few cores and small blocks, so that short sequences are many blocks; every run checks data and races.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from xdsl.dialects import arith, func, ml_program
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    IndexType,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    UnitAttr,
    f16,
    i32,
    i64,
)
from xdsl.ir import Block, Region

from pimc.driver.compile import Options, compile_imported
from pimc.frontends.model import ImportedModel
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.interpreter import Interpreter
from pimc.ir.locations import set_location, source_location
from pimc.runtime import Executable

FOUR = ("cores.count=4", "hbm.stacks=1", "hbm.channels=8", "noc.columns=4", "noc.rows=1")
ONE = ("cores.count=1", "hbm.stacks=1", "hbm.channels=2", "noc.columns=1", "noc.rows=1")
#: Of an attention's result, whose elements are around 1 and less where many values are averaged.
BOUND = 2.0**-7


@dataclass(frozen=True)
class Case:
    """An attention, its machine, and what is run: ``chunks`` times ``rows`` tokens, then single ones to ``length``."""

    heads: int = 2
    kv_heads: int = 1
    dim: int = 16
    rows: int = 8
    slots: int = 128
    chunks: int = 2
    length: int = 18
    window: int | None = None
    softcap: float | None = None
    slopes: bool = False
    bias: bool = False
    overrides: tuple[str, ...] = FOUR
    share: int = 40  # of local memory, percent

    def attributes(self) -> dict[str, object]:
        slopes = [2.0 ** -(1 + head) for head in range(self.heads)] if self.slopes else None
        return {
            "heads": self.heads, "kv_heads": self.kv_heads, "head_dim": self.dim, "scale": self.dim**-0.5,
            "window": self.window, "softcap": self.softcap, "slopes": slopes,
        }  # fmt: skip

    def weights(self) -> ModelWeights:
        """The bias of every head by distance, around 1."""
        table = np.random.default_rng(1).standard_normal((self.heads, self.slots)).astype(np.float16)
        return ModelWeights({"bias": table} if self.bias else {})


def entry(case: Case, name: str, rows: int) -> func.FuncOp:
    """Queries, keys and values of ``rows`` tokens to the attention of them and of what came before."""
    widths = [n * case.dim for n in (case.heads, case.kv_heads, case.kv_heads)]
    types = [*(TensorType(f16, [1, rows, width]) for width in widths), TensorType(i32, [1])]
    block = Block(arg_types=types)
    q, k, v, position = block.args
    layer = arith.ConstantOp(IntegerAttr(0, IndexType()))
    writes = [nn.CacheWriteOp(cache, layer.result, x, position) for cache, x in (("k_cache", k), ("v_cache", v))]
    bias = [nn.ParamOp("bias", TensorType(f16, [case.heads, case.slots]))] if case.bias else []
    found = nn.AttentionOp(q, layer.result, position, *bias, k="k_cache", v="v_cache", **case.attributes())
    block.add_ops([layer, *writes, *bias, found, func.ReturnOp(found.result)])
    names = ArrayAttr([DictionaryAttr({"pimc.name": StringAttr(n)}) for n in ("q", "k", "v", "position")])
    signature = FunctionType.from_lists(types, [found.result.type])
    return func.FuncOp(name, signature, Region(block), arg_attrs=names)


def module_of(case: Case) -> ModuleOp:
    cache = TensorType(f16, [1, case.slots, case.kv_heads, case.dim])
    caches = [
        ml_program.GlobalOp(StringAttr(name), cache, UnitAttr(), None, StringAttr("private"))
        for name in ("k_cache", "v_cache")
    ]
    entries = [entry(case, "many", case.rows)] if case.chunks else []
    sizes = {"layers": IntegerAttr(1, i64), "max_seq": IntegerAttr(case.slots, i64)}
    module = ModuleOp([*caches, *entries, entry(case, "one", 1)], attributes={"pimc.model": DictionaryAttr(sizes)})
    for op in module.walk():
        set_location(op, source_location("test.py", 1, 0))
    return module


def executable(case: Case) -> Executable:
    model = ImportedModel(module_of(case), case.weights(), None, None, [], {}, "test")
    pipeline = f"...,tile{{key_share={case.share}}},..."
    options = Options(max_seq=case.slots, overrides=case.overrides, pipeline=pipeline)
    compiled = compile_imported(model, options=options)
    return Executable(compiled.program, compiled.target)


def expected(case: Case, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """All rows' attention by PyTorch, fp32: ``[M, H * D]``."""
    tokens = len(q)
    split = [torch.tensor(x, dtype=torch.float32).reshape(tokens, -1, case.dim).transpose(0, 1) for x in (q, k, v)]
    shared = case.heads // case.kv_heads
    queries, keys, values = split[0], *(x.repeat_interleave(shared, 0) for x in split[1:])
    scores = queries @ keys.transpose(1, 2) * case.dim**-0.5
    if case.softcap is not None:
        scores = case.softcap * torch.tanh(scores / case.softcap)
    distance = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None]  # key - query
    if case.slopes:
        slopes = torch.tensor(case.attributes()["slopes"])
        scores = scores + slopes[:, None, None] * distance
    if case.bias:
        table = torch.tensor(case.weights()["bias"].astype(np.float32))
        scores = scores + table[:, (-distance).clamp(min=0)]
    seen = distance <= 0
    if case.window is not None:
        seen &= distance > -case.window
    scores = scores.masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ values).transpose(0, 1).reshape(tokens, -1).numpy()


#: Blocks of 32 slots for one row and of 16 for several, on one core.
SMALL = {"overrides": ONE, "share": 2, "chunks": 8}
CASES = {
    "one block, fewer tokens than cores": Case(rows=2, length=20),
    "from position 0": Case(chunks=0, length=9),
    "to the last position": Case(slots=16, chunks=1, length=16),
    "blocks": Case(**SMALL, length=128),
    "blocks in groups": Case(share=1, rows=70, slots=300, chunks=3, length=300),
    "a chunk of blocks": Case(**SMALL | {"chunks": 1}, rows=200, slots=256, length=256),
    "chunks of 3 blocks of query rows": Case(3, 1, 16, rows=50, slots=128, length=101),
    "window of a token": Case(**SMALL, length=66, window=1),
    "window smaller than a block": Case(**SMALL, length=128, window=5),
    "window of a block": Case(**SMALL, length=128, window=32),
    "window larger than a block": Case(**SMALL, length=128, window=43),
    "window larger than all": Case(**SMALL, length=128, window=500),
    "window smaller than a group": Case(rows=12, length=29, window=3),
    "window in a chunk of blocks": Case(**SMALL | {"chunks": 1}, rows=150, slots=256, length=256, window=37),
    "softcap": Case(**SMALL, length=128, softcap=2.0),
    "softcap, window and shared heads": Case(6, 2, 20, length=19, softcap=5.0, window=7),
    "slopes": Case(**SMALL, length=128, slopes=True),
    "slopes and window in groups": Case(4, 4, rows=16, length=35, slopes=True, window=9),
    "bias by distance": Case(**SMALL, length=128, bias=True),
    "bias by distance, in groups of shared heads": Case(6, 2, 20, rows=5, slots=50, length=23, bias=True),
    "bias by distance in a chunk of blocks": Case(**SMALL | {"chunks": 1}, rows=150, slots=256, length=160, bias=True),
    "two rounds": Case(9, 3, 16),
    "12 queries a head": Case(12, 1, 8, length=32),
    "71 queries a head": Case(71, 1, 8, rows=4, slots=32, length=32),
    "heads of 5": Case(7, 7, 5),
    "heads of 80": Case(2, 2, 80),
    "heads of 130": Case(2, 1, 130),
    "heads of 256": Case(4, 2, 256, rows=20, length=42),
}


def run(case: Case) -> None:
    machine = executable(case)
    reference = Interpreter(module_of(case), case.weights(), precision="f32")
    rng = np.random.default_rng(0)
    chunked = case.chunks * case.rows
    runs = [("many", start, case.rows) for start in range(0, chunked, case.rows)]
    runs += [("one", at, 1) for at in range(chunked, case.length)]
    widths = [n * case.dim for n in (case.heads, case.kv_heads, case.kv_heads)]
    q, k, v = (
        (s * rng.standard_normal((case.length, w))).astype(np.float16) for s, w in zip((3, 1, 1), widths, strict=True)
    )
    wanted = expected(case, q, k, v)
    for name, start, rows in runs:
        piece = slice(start, start + rows)
        inputs = {
            "q": q[None, piece],
            "k": k[None, piece],
            "v": v[None, piece],
            "position": np.array([start], np.int32),
        }
        (got,) = machine.run(inputs, entry=name).outputs.values()
        np.testing.assert_allclose(got[0], wanted[piece], rtol=0, atol=BOUND, err_msg=f"{name} at {start}")
        (meaning,) = reference.call(name, inputs).values()
        np.testing.assert_allclose(meaning[0], wanted[piece], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_attention(name: str) -> None:
    run(CASES[name])
