"""What can watch a pipeline run: printing the IR, timing, dumping to files."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from pimc.ir.context import print_module


class Observer(Protocol):
    """Called by the pass manager around every pass."""

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Before pass ``index`` runs."""

    def after(self, index: int, pass_: ModulePass, module: ModuleOp, seconds: float) -> None:
        """After it ran (before its result is checked), with its wall-clock time."""


@dataclass
class PrintIr:
    """Print the IR to ``stream`` after the passes named (``all_``: after all)."""

    stream: TextIO
    after_passes: Collection[str] = ()
    all_: bool = False

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Nothing."""

    def after(self, index: int, pass_: ModulePass, module: ModuleOp, seconds: float) -> None:
        """Print after the passes asked for."""
        if self.all_ or pass_.name in self.after_passes:
            self.stream.write(f"// ---- IR after {pass_.name}\n{print_module(module)}")


@dataclass
class TimePasses:
    """Collect the time of every pass."""

    seconds: list[tuple[str, float]] = field(default_factory=list)

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Nothing to do."""

    def after(self, index: int, pass_: ModulePass, module: ModuleOp, seconds: float) -> None:
        """Note the time."""
        self.seconds.append((pass_.name, seconds))

    def table(self) -> str:
        """A table of pass, milliseconds and share."""
        total = sum(seconds for _, seconds in self.seconds)
        rows = [(name, seconds, seconds / total if total else 0.0) for name, seconds in self.seconds]
        rows.append(("total", total, 1.0 if total else 0.0))
        return "".join(f"{1000 * seconds:10.1f} ms {share:6.1%}  {name}\n" for name, seconds, share in rows)


@dataclass
class DumpIr:
    """Write the module to ``folder`` as ``00-input.mlir``, then one numbered file a pass."""

    folder: Path

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Write what the first pass gets."""
        if index == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write("00-input.mlir", module)

    def after(self, index: int, pass_: ModulePass, module: ModuleOp, seconds: float) -> None:
        """Write what the pass leaves."""
        self._write(f"{index + 1:02}-{re.sub(r'[^A-Za-z0-9_.-]', '_', pass_.name)}.mlir", module)

    def _write(self, name: str, module: ModuleOp) -> None:
        (self.folder / name).write_text(print_module(module), encoding="utf-8")
