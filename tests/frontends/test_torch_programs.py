"""PyTorch modules of any kind become the entry point ``main``, which computes what the module does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch_programs import Function, check_import, interpreted
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PretrainedConfig,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
)
from xdsl.dialects.func import FuncOp

from pimc.diagnostics import InputError, UnsupportedModelError, UsageError
from pimc.frontends import import_model
from pimc.frontends.decompositions import rules
from pimc.frontends.torch_program import import_module
from pimc.ir.interpreter.core import port_names
from pimc.ir.nn import ParamOp

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}


def ids(*shape: int) -> Tensor:
    return torch.randint(2, 60, shape, generator=torch.Generator().manual_seed(sum(shape)))


def encoder(**options: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)  # type: ignore[arg-type]
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(32), enable_nested_tensor=False)


@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True, "activation": "gelu", "bias": False}], ids=["post-norm", "pre-norm"]
)
def test_transformer_encoder(options: dict[str, object]) -> None:
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    for kwargs in ({}, {"src_key_padding_mask": padding}, {"mask": causal, "is_causal": True}):
        check_import(encoder(**options), (torch.randn(2, 5, 32),), kwargs)


def test_transformer_with_a_decoder() -> None:
    model = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    check_import(model, (torch.randn(1, 5, 16), torch.randn(1, 3, 16)))


def test_multi_head_attention_and_its_weights() -> None:
    attention = nn.MultiheadAttention(16, 2, kdim=12, vdim=10)
    check_import(attention, (torch.randn(4, 2, 16), torch.randn(6, 2, 12), torch.randn(6, 2, 10)))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mask", ["none", "attention", "padding", "both"])
def test_rules_for_fused_kernels(norm_first: bool, mask: str) -> None:
    """The rules agree with the kernels they stand for."""
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=norm_first, activation="gelu").eval()
    x, attention = torch.randn(2, 5, 16), layer.self_attn
    chosen, kind = {
        "none": (None, None),
        "attention": (torch.ones(5, 5).triu(1).bool(), 0),
        "padding": (torch.arange(5) > torch.tensor([[2], [3]]), 1),
        "both": ((torch.randn(2, 2, 5, 5) > 1) & (torch.arange(5) > 0), 2),
    }[mask]
    arguments = (
        x, 16, 2, attention.in_proj_weight, attention.in_proj_bias, attention.out_proj.weight, attention.out_proj.bias,
        True, norm_first, layer.norm1.eps, layer.norm1.weight, layer.norm1.bias, layer.norm2.weight, layer.norm2.bias,
        layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias, chosen, kind,
    )  # fmt: skip
    kernel = torch.ops.aten._transformer_encoder_layer_fwd.default
    with torch.no_grad():
        torch.testing.assert_close(rules()[str(kernel)](*arguments), kernel(*arguments), atol=1e-5, rtol=1e-4)


HUGGING_FACE: dict[str, tuple[Callable[[PretrainedConfig], nn.Module], PretrainedConfig]] = {
    "bert": (BertModel, BertConfig(**SIZES)),
    "roberta": (RobertaModel, RobertaConfig(**SIZES, pad_token_id=1)),
    "distilbert": (
        DistilBertModel,
        DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=32),
    ),
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_text_encoders(name: str, attention: str) -> None:
    kind, config = HUGGING_FACE[name]
    model = kind(config).eval()
    model.set_attn_implementation(attention)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    outputs = check_import(model, (), {"input_ids": ids(2, 7), "attention_mask": mask})
    assert "last_hidden_state" in outputs


def test_vision_transformer() -> None:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=4
    )
    check_import(ViTModel(config), (torch.randn(2, 3, 16, 16),))


CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "patches": (nn.Conv2d(3, 8, 4, 4), (2, 3, 13, 12)),
    "plain": (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 6, 5)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), bias=False), (1, 4, 9, 8)),
    "same": (nn.Conv2d(2, 3, 4, padding="same"), (1, 2, 6, 6)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (2, 4, 6, 6)),
    "of sequences": (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 11)),
    "of volumes": (nn.Conv3d(2, 3, 2), (1, 2, 3, 4, 3)),
    "without a batch": (nn.Conv1d(4, 6, 3), (4, 11)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    module, shape = CONVOLUTIONS[name]
    check_import(module, (torch.randn(shape),))


def test_batch_norm_uses_the_statistics_of_training() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 5))
    norm = block[1]
    with torch.no_grad():
        norm.running_mean.uniform_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_()
    check_import(block, (torch.randn(2, 3, 6, 6),))


class _TwoUses(nn.Module):
    """A convolution whose result a norm and something else use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)
        with torch.no_grad():
            self.norm.running_mean.uniform_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


def test_batch_norm_goes_into_the_weights_of_a_convolution_that_it_alone_uses() -> None:
    def kinds(module: nn.Module, x: Tensor) -> list[str]:
        check_import(module.eval(), (x,))
        return [op.name for op in import_module(module, (x,)).module.walk()]

    single = kinds(nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), torch.randn(2, 3, 6))
    assert single.count("nn.param") == 2
    assert "nn.mul" not in single
    assert kinds(_TwoUses(), torch.randn(1, 4, 5, 5)).count("nn.mul") == 1


class Everything(nn.Module):
    """Nested inputs and outputs, several element types, constants, writes to slices, outputs that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, 8)
        self.head = nn.Linear(8, 60, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("offsets", torch.arange(6))
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, tokens: Tensor, batch: dict[str, Tensor], *, keep: Tensor) -> dict[str, object]:
        x = self.embed(tokens) * self.scale + torch.tensor([1.0, 2.0] * 4)
        x[:, 0] = batch["first"]
        x += self.offsets[None, :, None]
        x = torch.where(keep[..., None], x, -x)
        pieces = [x.sum(), (x.argmax(-1), x > 0)]
        return {"logits": self.head(x), "pieces": pieces, "count": 3, "nothing": None, "total": tokens.sum(-1)}


def test_nested_inputs_and_outputs_have_names() -> None:
    model = Everything()
    keep = torch.rand(2, 6) > 0.5
    found = check_import(model, (ids(2, 6), {"first": torch.randn(2, 8)}), {"keep": keep})
    assert list(found) == ["logits", "pieces.0", "pieces.1.0", "pieces.1.1", "total"]
    assert [array.dtype for array in found.values()] == [np.float32, np.float32, np.int32, np.bool_, np.int32]

    imported = import_module(model, (ids(2, 6), {"first": torch.randn(2, 8)}), {"keep": keep})
    (function,) = (op for op in imported.module.ops if isinstance(op, FuncOp))
    assert port_names(function.arg_attrs, 3, "arg") == ["tokens", "batch_first", "keep"]
    assert {op.weight_name.data for op in imported.module.walk() if isinstance(op, ParamOp)} >= {"embed.weight"}
    assert "head.weight" not in imported.weights  # tied


@pytest.mark.parametrize(("result", "names"), [(0, ["output"]), ([1, 0], ["output0", "output1"])])
def test_outputs_without_names(result: object, names: list[str]) -> None:
    def function(x: Tensor) -> object:
        return pytree.tree_map(lambda number: x * (number + 2), result)

    assert list(check_import(Function(function), (torch.randn(3),))) == names


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).to(dtype).eval()
    x = torch.randn(2, 8, dtype=dtype)
    imported = import_module(model, (x,))
    with torch.no_grad():
        wanted = model.float()(x.float()).numpy()
    (found,) = interpreted(imported, [x]).values()
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_weights_computed_from_weights_are_weights() -> None:
    """A reparametrised layer is a plain one after import."""
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))
    check_import(layer, (torch.randn(2, 8),))
    imported = import_module(layer.eval(), (torch.randn(2, 8),))
    operators = {op.name for op in imported.module.walk() if op.name.startswith("nn.")}
    assert operators == {"nn.param", "nn.linear"}


def test_masks_and_positions_are_computed_at_import() -> None:
    def function(x: Tensor) -> Tensor:
        steps = torch.arange(5)
        table = torch.sin(steps[:, None] / 10 ** torch.arange(4)[None])
        mask = steps[None] > steps[:, None]
        return (x @ x.mT + torch.zeros(5, 5).masked_fill(mask, float("-inf"))).softmax(-1) @ (x + table)

    check_import(Function(function), (torch.randn(2, 5, 4),))
    imported = import_module(Function(function), (torch.randn(2, 5, 4),))
    operators = {op.name for op in imported.module.walk() if op.name.startswith("nn.")}
    assert operators <= {"nn.param", "nn.constant", "nn.transpose", "nn.matmul", "nn.add", "nn.softmax"}


def test_everything_unsupported_is_listed() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(4) + torch.fft.fft(x).real

    model = nn.Sequential(nn.Linear(4, 4), Odd(), nn.Dropout(0.5))
    with pytest.raises(UnsupportedModelError) as caught:
        import_module(model, (torch.randn(2, 4),))
    items = caught.value.items
    assert [(item.operator, item.node) for item in items] == [
        ("aten.rand.default", "1"),
        ("aten.fft_fft.default", "1"),
        ("aten.real.default", "1"),
        ("aten.dropout.default", "2"),
    ]
    assert all(item.source_line and item.source_line.startswith("test_torch_programs.py:") for item in items[:3])
    assert items[1].reason == "no conversion of its part aten._fft_r2c.default"
    assert items[3].alternative == "model.eval() turns it off"
    assert len(str(caught.value).splitlines()) == 1 + len(items)


@dataclass(frozen=True)
class Refused:
    function: Callable[..., object]
    message: str


REFUSED = {
    "a shape that depends on values": Refused(lambda x: x[x > 0], "indexing by a mask"),
    "a branch on values": Refused(lambda x: x if x.sum() > 0 else -x, r"test_torch_programs\.py:\d+: torch\.export"),
    "a write to an input": Refused(lambda x: x.add_(1), "changes an input"),
    "a module in training": Refused(lambda x: nn.functional.dropout(x, 0.1, training=True), "dropout in training"),
    "an error in the module": Refused(lambda x: x @ x, r"test_torch_programs\.py:\d+: torch\.export"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_programs(name: str) -> None:
    case = REFUSED[name]
    with pytest.raises(InputError, match=case.message):
        import_module(Function(case.function), (torch.randn(2, 3),))


def test_modules_in_memory() -> None:
    model = nn.Linear(4, 2)
    x = torch.randn(3, 4)
    for inputs in ((x,), [x.numpy()], {"input": x}):
        assert import_model(model, max_seq=8, example_inputs=inputs).name == "Linear"
    exported = torch.export.export(model, (x,))
    assert import_model(exported, max_seq=8).weights.shape("weight") == (2, 4)
    with pytest.raises(UsageError, match="a Linear needs example inputs"):
        import_model(model, max_seq=8)
    with pytest.raises(UsageError, match="takes no shapes"):
        import_model(model, max_seq=8, example_inputs=(x,), shapes={"x": (1,)})
    with pytest.raises(InputError, match="cannot compile a dict"):
        import_model({}, max_seq=8)


def test_a_weight_that_overflows_fp16_is_named() -> None:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight[0, 0] = 1e6
    with pytest.raises(InputError, match="weight 'weight' does not fit fp16"):
        import_module(model, (torch.randn(4),))
