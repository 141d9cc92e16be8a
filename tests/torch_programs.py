"""Import of PyTorch modules and the comparison of what they compute with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.utils import _pytree as pytree
from xdsl.dialects.func import FuncOp

from pimc.frontends.model import ImportedModel
from pimc.frontends.torch_program import import_module
from pimc.ir.context import verify_module
from pimc.ir.interpreter import Interpreter
from pimc.ir.interpreter.core import port_names
from pimc.ir.locations import check_locations


class Function(torch.nn.Module):
    """A module that computes a function of its inputs."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs)


def tensors_of(value: object) -> list[torch.Tensor]:
    return [item for item in pytree.tree_leaves(value) if isinstance(item, torch.Tensor)]


def interpreted(model: ImportedModel, tensors: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
    """What the imported module gives for inputs in order."""
    (function,) = (op for op in model.module.ops if isinstance(op, FuncOp))
    names = port_names(function.arg_attrs, len(tensors), "arg")
    inputs = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in zip(names, tensors, strict=True)
    }
    return Interpreter(model.module, model.weights, "f32").call("main", inputs)


def check_import(
    module: torch.nn.Module,
    inputs: Sequence[object],
    kwargs: Mapping[str, object] | None = None,
    *,
    atol: float = 2e-5,
) -> dict[str, np.ndarray]:
    """The imported module computes what the module does; its outputs by name."""
    kwargs = kwargs or {}
    module = module.eval()
    with torch.no_grad():
        wanted = tensors_of(module(*inputs, **kwargs))
    model = import_module(module, inputs, kwargs)
    verify_module(model.module)
    check_locations(model.module)
    found = interpreted(model, tensors_of((tuple(inputs), dict(kwargs))))
    assert len(found) == len(wanted)
    for (name, array), tensor in zip(found.items(), wanted, strict=True):
        assert array.shape == tuple(tensor.shape), name
        exact = tensor.double().numpy()
        np.testing.assert_allclose(array.astype(np.float64), exact, atol=atol, rtol=1e-4, err_msg=name)
    return found
