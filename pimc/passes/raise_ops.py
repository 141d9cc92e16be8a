"""``raise``: recognise a model's operators in the primitives that its exporter left.
 Themes run one after the other over each function, every one walking it once: positions, activations, norms,
linear layers, rotary embedding, attention, the last token.  What is not recognised stays as it is; reasons of
patterns that nearly matched are given to ``--explain``.  At the end fp32 tensors become fp16
(``precision=f32`` keeps them, to compare with the model).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.transforms.common_subexpression_elimination import cse
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from pimc.diagnostics import InputError, UsageError
from pimc.ir import nn
from pimc.ir.locations import where
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext
from pimc.passes.raise_activations import raise_activations
from pimc.passes.raise_attention import raise_attention
from pimc.passes.raise_linear import raise_bias, raise_parts, raise_rank, raise_select_token
from pimc.passes.raise_match import Notes
from pimc.passes.raise_norms import raise_norms
from pimc.passes.raise_precision import narrow
from pimc.passes.raise_rope import raise_positions, raise_rope
from pimc.passes.raise_views import fold_identities

THEMES: Final[tuple[tuple[str, Callable[[FuncOp, Notes], None]], ...]] = (
    ("positions", raise_positions),
    ("activations", raise_activations),
    ("norms", raise_norms),
    ("rank", raise_rank),
    ("bias", raise_bias),
    ("parts", raise_parts),
    ("rope", raise_rope),
    ("attention", raise_attention),
    ("rank", raise_rank),
    ("select-token", raise_select_token),
)


@dataclass(frozen=True)
class RaisePass(Pass):
    """Raise primitives to operators; ``only`` names the themes to run (default: all)."""

    name = "raise"
    produces: ClassVar[Stage | None] = Stage.RAISED
    precision: str = "f16"
    only: tuple[str, ...] = ()

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        themes = dict(THEMES)
        if unknown := sorted(set(self.only) - set(themes)):
            raise UsageError(f"raise: no theme {unknown[0]!r}", hint=f"themes are {', '.join(themes)}")
        if self.precision not in ("f16", "f32"):
            raise UsageError(f"raise: precision must be f16 or f32, is {self.precision!r}")
        for function in [f for f in module.ops if isinstance(f, FuncOp) and f.body.blocks]:
            raise_function(function, self.only or tuple(themes), Notes(context.explain))
        if self.precision == "f16":
            narrow(module)
        if not self.only:
            _check_caches(module, context)


def raise_function(function: FuncOp, only: tuple[str, ...], notes: Notes) -> None:
    """Run the themes in ``only`` on one function, cleaning up between them."""
    cse(function)
    _clean(function)
    for name, theme in THEMES:
        if name in only:
            theme(function, notes)
            _clean(function)
    cse(function)
    _clean(function)


def _check_caches(module: ModuleOp, context: PassContext) -> None:
    """A cache is only read by attention: later passes cut both by heads.  InputError with the reason otherwise."""
    for op in module.walk():
        if isinstance(op, nn.CacheReadOp):
            reasons = [found.reason for found in context.decisions if found.reason.startswith("no attention")]
            raise InputError(
                f"attention over {op.cache} is not recognised" + (f" ({reasons[0]})" if reasons else ""),
                hint="the pass option only=... runs single themes and leaves the rest",
                where=where(op),
            )


def _clean(function: FuncOp) -> None:
    """Fold views that cancel, then remove what nothing uses (users before what they use)."""
    fold_identities(function)
    for op in reversed(list(function.walk())):
        if is_trivially_dead(op) and op.parent is not None:
            op.detach()
            op.erase()
