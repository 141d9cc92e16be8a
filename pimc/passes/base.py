"""The base class of passes, and what a pass gets to see besides the module.

A pass is a frozen dataclass: its fields are its options, and object and text round-trip
(``tile{share=40}``)::

    @dataclass(frozen=True)
    class MyPass(Pass):
        \"\"\"One line for `pimc opt --list-passes`.\"\"\"

        name = "my-pass"
        produces = Stage.PLACED  # the stage it leaves the module in; leave out if it stays in the same
        limit: int = 4

        def run(self, module: ModuleOp, context: PassContext) -> None: ...

Options are int, float, bool, str, tuples of them, or any of these ``| None``.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import ArgSpec, ParameterListType, ParameterType

from pimc.diagnostics import UsageError
from pimc.ir.context import make_context
from pimc.ir.locations import where
from pimc.ir.source_map import SourceMap
from pimc.ir.stages import Stage, op_name
from pimc.ir.weights import WeightStore
from pimc.isa.program import Program
from pimc.targets import Target

if TYPE_CHECKING:
    from pimc.passes.policy import Policy


@dataclass(frozen=True)
class Decision:
    """Why a pass treated an operation as it did (or did not), for ``--explain``."""

    pass_name: str
    op: str
    where: str
    reason: str


@dataclass
class PassContext:
    """What a pass sees besides the module.

    ``ir``: the xDSL context with the dialects; ``machine``: the target, None where the command gave none;
    ``weights``: the store of the `nn.param`, None where there is none; ``shapes_only``: a program without weights is
    wanted, whether the store has values or not; ``target_name`` and
    ``overrides``: how the target was named, handed to plain xDSL passes that have options ``target`` and
    ``set``; ``program``: what ``link`` made; ``source``: the text that the module was parsed from, None
    for one that pimc made; ``policy``: where operations run, None for the default one.
    """

    ir: Context = field(default_factory=make_context)
    machine: Target | None = None
    weights: WeightStore | None = None
    shapes_only: bool = False
    target_name: str | None = None
    overrides: tuple[str, ...] = ()
    decisions: list[Decision] = field(default_factory=list)
    current_pass: str = ""
    program: Program | None = None
    source: SourceMap | None = None
    policy: Policy | None = None

    @property
    def policy_in_force(self) -> Policy:
        """The policy; the default one where the command gave none."""
        if self.policy is None:
            from pimc.passes.registry import PassRegistry

            self.policy = PassRegistry().policy()
        return self.policy

    @property
    def target(self) -> Target:
        """The target; UsageError if there is none."""
        if self.machine is None:
            raise UsageError(f"pass {self.current_pass!r} needs a target", hint="give one with --target")
        return self.machine

    def explain(self, op: Operation, reason: str) -> None:
        """Record why the running pass treated ``op`` as it did."""
        self.decisions.append(Decision(self.current_pass, op_name(op), where(op), reason))


@dataclass(frozen=True)
class Pass(ModulePass):
    """Base of our passes; see the module's description."""

    produces: ClassVar[Stage | None] = None
    """The stage the pass leaves a module in; None: the one it found."""

    requires: ClassVar[Stage | None] = None
    """The stage whose rule a module must meet before the pass."""

    @abstractmethod
    def run(self, module: ModuleOp, context: PassContext) -> None:
        """Transform the module in place."""

    @override
    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run as a plain xDSL pass (`xdsl-opt`): without target and weights."""
        self.run(op, PassContext(ir=ctx, current_pass=self.name))

    @override
    def __str__(self) -> str:
        """The text that parses to an equal pass."""
        return format_pass(self)


def format_pass(pass_: ModulePass, *, include_default: bool = False) -> str:
    """``name{option=value ...}``: the text that parses to an equal pass; defaults are left out."""
    return format_spec(pass_.spec(include_default=include_default))


def format_spec(spec: ArgSpec) -> str:
    """Text of a pass name with options."""
    options = " ".join(_format_option(name, values) for name, values in spec.parameters.items())
    return f"{spec.name}{{{options}}}" if options else spec.name


def _format_option(name: str, values: ParameterListType) -> str:
    key = name.replace("_", "-")
    return f"{key}={','.join(_format_value(value) for value in values)}" if values else key


def _format_value(value: ParameterType) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(value)
        mantissa, exponent, power = text.partition("e")
        return text if "." in mantissa or not exponent else f"{mantissa}.0e{power}"
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", value) and value not in ("true", "false"):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
