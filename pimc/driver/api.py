"""``pimc.compile`` and ``pimc.load``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike

from pimc.driver.target import Overrides, override_texts, target_of
from pimc.isa.container import load_program
from pimc.runtime import Executable


def load(
    path: str | Path,
    *,
    target: str | Path | None = None,
    overrides: Overrides = (),
    checks: bool = True,
    strict_numerics: bool = False,
) -> Executable:
    """Load a compiled binary (.pimx), ready to run.

    Args:
        path: the binary.
        target: a bundled target's name or a TOML file; by default what the binary was compiled for.
        overrides: single keys of the target to replace: ``{"hbm.timing.nFAW": 20}``, or ``["hbm.timing.nFAW=20"]``.
        checks: whether runs look for races and for reads of what nothing has written.
        strict_numerics: whether a run fails when a result leaves the range of fp16 though its operands were finite.

    Raises:
        InputError: the file is missing, damaged or not a binary of pimc, or its target is unknown.
    """
    program = load_program(path)
    return Executable(
        program, target_of(program, target, override_texts(overrides)), checks=checks, strict_numerics=strict_numerics
    )


def compile(
    model: object,
    example_inputs: Sequence[object] | Mapping[str, object] | None = None,
    *,
    target: str | Path = "hpim",
    overrides: Overrides = (),
    max_seq: int | None = None,
    prefill_chunk: int | Literal["auto"] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    bind: Mapping[str, ArrayLike] | None = None,
    policy: str | None = None,
    pipeline: str | None = None,
    plugins: Sequence[str] = (),
    weights: str | Path | None = None,
    shapes_only: bool = False,
) -> Executable:
    """Compile a model for a target.

    Args:
        model: a path (str or Path) of a Hugging Face model folder, a GGUF, ONNX or ``.pt2`` file, IR (``.mlir``);
            ``package.module:function`` or ``file.py:function`` that returns a PyTorch module and example inputs; or an
            object: any ``torch.nn.Module`` (in evaluation mode), an exported program, an ONNX model, a causal language
            model of transformers.
        example_inputs: of a PyTorch module, its arguments: tensors in a tuple, or by name in a dictionary.  The program
            computes on inputs of these shapes and types.  A language model of transformers that has none gets the
            entry points ``prefill`` and ``decode``; everything else has ``main``.
        target: a bundled target's name or a TOML file.
        overrides: single keys of the target to replace: ``{"hbm.timing.nFAW": 20}``, or ``["hbm.timing.nFAW=20"]``.
        max_seq: longest sequence of a language model, prompt included.
        prefill_chunk: prompt tokens a prefill run processes; ``"auto"``: as many as fit.
        shapes: of an ONNX model, an encoder or an exported program, shapes of inputs that it leaves open.
        bind: of an ONNX model, values of inputs that become constants.
        policy: where operations run, and the options of passes that go with it (see docs/passes.md); default ``paper``.
        pipeline: passes to run, or an edit of the default pipeline (see docs/cli.md).
        plugins: Python files or modules with passes or policies of your own.
        weights: of IR, the safetensors file with its weights; by default the one beside it.
        shapes_only: make a program without weights, which can be timed (``run(..., timing_only=True)``) and computes
            nothing; of a model folder, config.json is enough, and a model on the meta device is.

    Raises:
        InputError: the model cannot be read, or does not fit the target.
        UnsupportedModelError: an InputError whose ``items`` are all operations that are not supported.
        UsageError: an unknown policy, pass or option.
    """
    import numpy as np

    from pimc.driver.compile import Options, compile_model

    options = Options(
        target=target,
        overrides=override_texts(overrides),
        max_seq=max_seq,
        prefill_chunk=prefill_chunk,
        policy=policy,
        pipeline=pipeline,
        plugins=tuple(plugins),
        shapes=dict(shapes or {}),
        bind={name: np.asarray(value) for name, value in (bind or {}).items()},
        weights=weights,
        shapes_only=shapes_only,
    )
    result = compile_model(model, example_inputs, options=options)
    return Executable(result.in_memory(), result.target)
