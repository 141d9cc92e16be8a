"""Models of `transformers` from a configuration alone: the shapes and buffers are real, the parameters take no memory.

What is exported depends on no parameter's value, so that values stay in the checkpoint's files until the memory image
is written (:meth:`pimc.frontends.weights.ModelWeights.add_deferred`).  Buffers and constants are made as ever: the
tables of positions and the IR come from them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pimc.diagnostics import InputError
from pimc.timings import stage

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def blank_parameters() -> Iterator[None]:
    """While open, parameters of new modules have their shape and strides, and views of one block that nothing writes
    as storage: pages that are never touched take no memory.
    """
    import torch

    register = torch.nn.Module.register_parameter
    block = torch.empty(0)

    def register_blank(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal block
        if parameter is not None and not parameter.is_meta:
            if block.dtype != parameter.dtype or block.numel() < parameter.numel():
                block = torch.empty(parameter.numel(), dtype=parameter.dtype)
            view = torch.empty(0, dtype=parameter.dtype).set_(block.untyped_storage(), 0, parameter.shape)
            parameter = torch.nn.Parameter(view, requires_grad=False)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = register_blank
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


@stage("make the model's shapes")
def blank_model(config: object, where: str) -> torch.nn.Module:
    """A causal language model of `transformers` with blank parameters, in float32 and evaluation mode.

    InputError where the configuration makes no model.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    try:
        with no_init_weights(), blank_parameters():
            model: torch.nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.tie_weights()  # each had a blank of its own
    except Exception as error:  # the code of models checks little, and may raise anything
        raise bad_config(error, where) from error
    return model.eval()


def bad_config(error: Exception, where: str) -> InputError:
    """The error for a configuration that a model's code refuses."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = f"{type(error).__name__}: {lines[0]}" if isinstance(error, LookupError) else lines[0]
    return InputError(
        f"the configuration makes no model: {reason}",
        hint="compare it with the config.json that the model was published with",
        where=where,
    )
