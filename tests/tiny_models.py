"""Raised modules written by hand, in the form the frontends give, for the passes' tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.builder import Builder
from xdsl.dialects import arith, func, ml_program
from xdsl.dialects.builtin import (
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
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from pimc.ir import nn
from pimc.ir.locations import set_location, source_location
from pimc.ir.weights import InMemoryWeights, WeightStore
from pimc.passes.base import Pass, PassContext
from pimc.passes.pipeline import PassManager
from pimc.passes.policy import Policy
from pimc.targets import load_target


@dataclass(frozen=True)
class Shape:
    """Sizes of a small decoder-only model."""

    layers: int = 3
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 96
    vocab: int = 100
    max_seq: int = 32
    chunk: int = 8
    biases: bool = False
    window: int | None = None
    softcap: float | None = None
    prefix: str = "model.layers.{}"

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


LLAMA = Shape()
SMOLLM2 = Shape(30, 576, 9, 3, 1536, 49152, 2048, 64)


class _Entry:
    """Builds one entry function."""

    def __init__(self, shape: Shape, tokens: int) -> None:
        self.shape, self.tokens = shape, tokens
        ids, one = TensorType(i32, [1, tokens]), TensorType(i32, [1])
        self.inputs = [ids, one] if tokens == 1 else [ids, one, one]
        self.block = Block(arg_types=self.inputs)
        self.builder = Builder(InsertPoint.at_end(self.block))
        self.place = "model"

    def add(self, op: Operation) -> SSAValue:
        set_location(op, source_location(self.place))
        self.builder.insert(op)
        return op.results[0]

    def param(self, name: str, *dims: int) -> SSAValue:
        return self.add(nn.ParamOp(name, TensorType(f16, dims)))

    def linear(self, x: SSAValue, name: str, n: int, k: int) -> SSAValue:
        weight = self.param(f"{name}.weight", n, k)
        bias = self.param(f"{name}.bias", n) if self.shape.biases else None
        return self.add(nn.LinearOp(x, weight, bias))

    def layer(self, x: SSAValue, rope: SSAValue, index: int) -> SSAValue:
        s = self.shape
        name = s.prefix.format(index)
        self.place = f"{name}.self_attn"
        position = self.block.args[1]
        layer = self.add(arith.ConstantOp(IntegerAttr(index, IndexType())))
        h = self.add(nn.RmsNormOp(x, self.param(f"{name}.input_layernorm.weight", s.hidden), 1e-5))
        q = self.linear(h, f"{name}.self_attn.q_proj", s.hidden, s.hidden)
        k = self.linear(h, f"{name}.self_attn.k_proj", s.kv_heads * s.head_dim, s.hidden)
        v = self.linear(h, f"{name}.self_attn.v_proj", s.kv_heads * s.head_dim, s.hidden)
        q = self.add(nn.RopeOp(q, rope, s.head_dim))
        k = self.add(nn.RopeOp(k, rope, s.head_dim))
        for cache, value in (("k_cache", k), ("v_cache", v)):
            write = nn.CacheWriteOp(cache, layer, value, position)
            set_location(write, source_location(self.place))
            self.builder.insert(write)
        o = self.add(
            nn.AttentionOp(
                q,
                layer,
                position,
                k="k_cache",
                v="v_cache",
                heads=s.heads,
                kv_heads=s.kv_heads,
                head_dim=s.head_dim,
                scale=s.head_dim**-0.5,
                window=s.window,
                softcap=s.softcap,
            )
        )
        x = self.add(nn.AddOp(x, self.linear(o, f"{name}.self_attn.o_proj", s.hidden, s.hidden)))
        self.place = f"{name}.mlp"
        h = self.add(nn.RmsNormOp(x, self.param(f"{name}.post_attention_layernorm.weight", s.hidden), 1e-5))
        gate = self.linear(h, f"{name}.mlp.gate_proj", s.ffn, s.hidden)
        up = self.linear(h, f"{name}.mlp.up_proj", s.ffn, s.hidden)
        act = self.add(nn.MulOp(self.add(nn.SiluOp(gate)), up))
        return self.add(nn.AddOp(x, self.linear(act, f"{name}.mlp.down_proj", s.hidden, s.ffn)))

    def build(self, name: str) -> func.FuncOp:
        s = self.shape
        embedding = self.param("model.embed_tokens.weight", s.vocab, s.hidden)
        x = self.add(nn.EmbeddingOp(embedding, self.block.args[0]))
        positions = self.add(nn.PositionsOp(self.block.args[1], self.tokens))
        table = self.param("rope_table", s.max_seq, 2 * s.head_dim)
        rope = self.add(nn.EmbeddingOp(table, positions))
        for index in range(s.layers):
            x = self.layer(x, rope, index)
        self.place = "model.norm"
        x = self.add(nn.RmsNormOp(x, self.param("model.norm.weight", s.hidden), 1e-5))
        if self.tokens > 1:
            x = self.add(nn.SelectTokenOp(x, self.block.args[2]))
        logits = self.add(nn.LinearOp(x, embedding))
        self.builder.insert(func.ReturnOp(logits))
        type_ = FunctionType.from_lists(self.inputs, [logits.type])
        names = ["tokens", "position", "length"]
        arguments = [DictionaryAttr({"pimc.name": StringAttr(n)}) for n in names[: len(self.inputs)]]
        from xdsl.dialects.builtin import ArrayAttr

        function = func.FuncOp(name, type_, Region(self.block), arg_attrs=ArrayAttr(arguments))
        set_location(function, source_location("model"))
        return function


def llama(shape: Shape = LLAMA) -> ModuleOp:
    """A Llama-style module with @prefill and @decode."""
    cache = TensorType(f16, [shape.layers, shape.max_seq, shape.kv_heads, shape.head_dim])
    caches = [
        ml_program.GlobalOp(StringAttr(name), cache, UnitAttr(), None, StringAttr("private"))
        for name in ("k_cache", "v_cache")
    ]
    entries = [_Entry(shape, shape.chunk).build("prefill"), _Entry(shape, 1).build("decode")]
    numbers = {"layers": shape.layers, "hidden": shape.hidden, "max_seq": shape.max_seq}
    model = DictionaryAttr({key: IntegerAttr(value, i64) for key, value in numbers.items()})
    return ModuleOp([*caches, *entries], attributes={"pimc.model": model})


def weights(module: ModuleOp, shape: Shape = LLAMA, seed: int = 0) -> InMemoryWeights:
    """Random weights (fp16 values) for every parameter of a module before outlining."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for op in module.walk():
        if isinstance(op, nn.ParamOp):
            name, dims = op.weight_name.data, nn.tensor_of(op.result).get_shape()
            if name not in arrays:
                scale = 1.0 if len(dims) == 1 else dims[-1] ** -0.5
                arrays[name] = (rng.standard_normal(dims) * scale).astype(np.float16)
    d = shape.head_dim
    angle = np.arange(shape.max_seq)[:, None] * 10000.0 ** (-(np.arange(d) % (d // 2)) * 2 / d)[None, :]
    arrays["rope_table"] = np.concatenate([np.cos(angle), np.sin(angle)], 1).astype(np.float16)
    return InMemoryWeights(arrays)


def run_pass(
    module: ModuleOp,
    *passes: Pass,
    overrides: Sequence[str] = (),
    store: WeightStore | None = None,
    policy: Policy | None = None,
) -> None:
    """Run passes in place on the HPIM target, checked after each."""
    context = PassContext(machine=load_target("hpim", overrides), weights=store, policy=policy)
    PassManager(passes).run(module, context)
