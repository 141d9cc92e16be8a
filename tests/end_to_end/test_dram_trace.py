"""The independent checker reads the DRAM commands of whole compiled programs again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pimc.runtime_sim import Machine
from pimc.runtime_sim.checker import check_trace

INPUTS = {
    "prefill": {"tokens": np.full((1, 8), 7, np.int32), "position": np.array([0]), "length": np.array([8])},
    "decode": {"tokens": np.array([[9]], np.int32), "position": np.array([5])},
}


@pytest.mark.parametrize("entry", INPUTS)
def test_no_command_breaks_a_constraint(compiled: Callable, entry: str) -> None:
    executable = compiled("llama-gqa-9-3").executable
    machine = Machine(executable.program, executable.target, functional=False, checks=False, trace=True)
    result = machine.run(entry, {name: value.astype(np.int32) for name, value in INPUTS[entry].items()})
    assert result.trace is not None
    assert result.trace.lost == 0
    for pch in (0, 1, 62, 127):
        commands = result.trace.of_pch(pch)
        assert len(commands["cmd"]) > 100
        assert check_trace(executable.target.hbm, commands, limit=5) == []
