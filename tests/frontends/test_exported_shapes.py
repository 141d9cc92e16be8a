"""Exported programs with sizes that are not fixed, bound by ``shapes``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pimc.diagnostics import InputError, UsageError
from pimc.frontends import import_model
from pimc.frontends.exported_shapes import with_shapes
from pimc.ir.interpreter import Interpreter


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * x.shape[0] + y


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    """A program whose input ``x`` has 2 to 16 rows."""
    rows = torch.export.Dim("rows", min=2, max=16)
    inputs = (torch.zeros(3, 8), torch.zeros(4))
    return torch.export.export(Net().eval(), inputs, dynamic_shapes={"x": {0: rows}, "y": None})


def test_a_dynamic_program_is_bound(program: torch.export.ExportedProgram) -> None:
    model = import_model(program, max_seq=16, shapes={"x": (5, 8)})
    x, y = torch.randn(5, 8), torch.randn(4)
    found = Interpreter(model.module, model.weights, "f32").call("main", {"x": x.numpy(), "y": y.numpy()})
    (result,) = found.values()
    torch.testing.assert_close(torch.from_numpy(result), program.module()(x, y), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "error", "message"),
    [
        ({}, InputError, r"the sizes of x \[s\d+, 8\] are not fixed"),
        ({"z": (1,)}, UsageError, "no input 'z'"),
        ({"x": (5, 9)}, UsageError, "cannot have the shape"),
        ({"x": (5,)}, UsageError, "cannot have the shape"),
        ({"x": (17, 8)}, InputError, "does not take inputs of these shapes"),
        ({"x": (5, 8), "y": (5,)}, UsageError, "cannot have the shape"),
    ],
)
def test_shapes_that_do_not_fit(
    program: torch.export.ExportedProgram, shapes: dict[str, tuple[int, ...]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        import_model(program, max_seq=16, shapes=shapes)
    if not shapes:
        assert "shapes={'x': (3, 8)}" in (caught.value.hint or "")


def test_a_program_of_fixed_shapes_stays() -> None:
    fixed = torch.export.export(Net().eval(), (torch.zeros(3, 8), torch.zeros(4)))
    assert with_shapes(fixed, {"x": (3, 8)}) is fixed
    with pytest.raises(UsageError, match="cannot have the shape"):
        with_shapes(fixed, {"x": (4, 8)})


def test_a_file_says_what_can_be_done(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    torch.export.save(program, tmp_path / "open.pt2")
    with pytest.raises(InputError, match="not fixed") as caught:
        import_model(tmp_path / "open.pt2", max_seq=16)
    assert "shapes=" in (caught.value.hint or "")
