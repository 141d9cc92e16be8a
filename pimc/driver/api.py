"""``pimc.compile`` and ``pimc.load``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pimc.driver.target import target_of
from pimc.isa.container import load_program
from pimc.runtime import Executable


def load(path: str | Path, *, target: str | Path | None = None, overrides: Sequence[str] = ()) -> Executable:
    """Load a compiled binary (.pimx), ready to run.

    Args:
        path: the binary.
        target: a bundled target's name or a TOML file; by default what the binary was compiled for.
        overrides: single keys of the target to replace, such as ``"hbm.timing.tFAW=20"``.

    Raises:
        InputError: the file is missing, damaged or not a binary of pimc, or its target is unknown.
    """
    program = load_program(path)
    return Executable(program, target_of(program, target, overrides))


def compile(
    model: object,
    example_inputs: Sequence[object] | None = None,
    *,
    target: str | Path = "hpim",
    overrides: Sequence[str] = (),
    max_seq: int | None = None,
    prefill_chunk: int | None = None,
    pipeline: str | None = None,
    plugins: Sequence[str] = (),
) -> Executable:
    """Compile a model for a target.

    Args:
        model: a Hugging Face model folder or a GGUF file (str or Path), or a causal language model of transformers.
        example_inputs: not used by language models; for the PyTorch modules that are to follow.
        target: a bundled target's name or a TOML file.
        overrides: single keys of the target to replace, such as ``"hbm.timing.tFAW=20"``.
        max_seq: longest sequence of a language model, prompt included.
        prefill_chunk: prompt tokens a prefill run processes.
        pipeline: passes to run, or an edit of the default pipeline (see docs/cli.md).
        plugins: Python files or modules with passes of your own.

    Raises:
        InputError: the model cannot be read, has unsupported operations, or does not fit the target.
        UsageError: an unknown pass or option.
    """
    from pimc.driver.compile import Options, compile_model

    options = Options(
        target=target,
        overrides=tuple(overrides),
        max_seq=max_seq,
        prefill_chunk=prefill_chunk,
        pipeline=pipeline,
        plugins=tuple(plugins),
    )
    result = compile_model(model, example_inputs, options=options)
    return Executable(result.program, result.target)
