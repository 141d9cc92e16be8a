"""What may be in a module at each stage of the pipeline, and the check of it.

Every pass states the stage it leaves the module in; the pass manager checks the module against the rule of
that stage, and against it again after each later pass that states none.  So a pass that leaves something
behind that the next one does not expect is named at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from xdsl.dialects.builtin import ModuleOp, StringAttr, UnregisteredOp
from xdsl.ir import Operation

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.locations import where

#: Module attribute that says which stage a pass left the module in.
ATTRIBUTE = "pim.stage"

BASE_DIALECTS = frozenset({"builtin", "func", "arith", "scf", "tensor", "ml_program"})


class Stage(IntEnum):
    """Stages of the IR, in order of the pipeline."""

    IMPORTED = 0
    RAISED = 1
    OUTLINED = 2
    ANNOTATED = 3
    PLACED = 4
    PARTITIONED = 5
    LAID_OUT = 6
    TILED = 7
    SCHEDULED = 8
    LOWERED = 9
    ALLOCATED = 10
    EMITTED = 11

    @property
    def title(self) -> str:
        """The name in messages and options: ``laid-out``."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True)
class StageRule:
    """What a module at a stage consists of.

    ``dialects``: those whose operations may occur; ``forbidden``: operations that may not; ``attributes``:
    what every compute operation of `nn` must carry; ``module_attributes``: what the module must carry.
    """

    dialects: frozenset[str]
    forbidden: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    module_attributes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Violation:
    """An operation that the rule of a stage does not allow, and why."""

    op: Operation
    reason: str

    def __str__(self) -> str:
        return f"{op_name(self.op)} ({where(self.op)}): {self.reason}"


_NN = BASE_DIALECTS | {"nn"}
_PIM = _NN | {"pim"}
_COST = frozenset({"pim.class", "pim.flops", "pim.bytes", "pim.intensity"})
_PLACE = _COST | {"pim.domain", "pim.reason"}
_UNRAISED = frozenset({"nn.cache_read"})
_UNCUT = _UNRAISED | {"nn.linear", "nn.attention", "nn.attention_full", "nn.cache_write"}
_MEMORY = frozenset({"pim.memory"})
_MACHINE = frozenset({"builtin", "sram", "hbm", "func"})
_PROGRAMS = frozenset({"sram.program", "hbm.program"})
_CODE = frozenset({"sram.code", "hbm.code"})

RULES: dict[Stage, StageRule] = {
    Stage.IMPORTED: StageRule(_NN),
    Stage.RAISED: StageRule(_NN, _UNRAISED),
    Stage.OUTLINED: StageRule(_NN, _UNRAISED),
    Stage.ANNOTATED: StageRule(_NN, _UNRAISED, _COST),
    Stage.PLACED: StageRule(_NN, _UNRAISED, _PLACE),
    Stage.PARTITIONED: StageRule(_PIM, _UNCUT),
    Stage.LAID_OUT: StageRule(_PIM, _UNCUT, module_attributes=_MEMORY),
    Stage.TILED: StageRule(_PIM, _UNCUT, module_attributes=_MEMORY),
    Stage.SCHEDULED: StageRule(_PIM, _UNCUT, module_attributes=_MEMORY),
    Stage.LOWERED: StageRule(_MACHINE),
    Stage.ALLOCATED: StageRule(_MACHINE),
    Stage.EMITTED: StageRule(_MACHINE, _PROGRAMS),
}


def state_stage(module: ModuleOp, stage: Stage) -> None:
    """Write on the module which stage it is in, so that a dump can be taken up again."""
    module.attributes[ATTRIBUTE] = StringAttr(stage.title)


def stage_of(module: ModuleOp) -> Stage:
    """The stage that a module states, or that its operations tell.

    Raises:
        InputError: it states a stage that there is not, or whose rule it does not meet.
    """
    stated = module.attributes.get(ATTRIBUTE)
    if stated is None:
        return _told_stage(module)
    titles = {stage.title: stage for stage in Stage}
    stage = titles.get(stated.data) if isinstance(stated, StringAttr) else None
    if stage is None:
        raise InputError(
            f"{ATTRIBUTE} is {stated}, which is no stage",
            hint=f"it is one of {', '.join(titles)}; without it, the operations tell",
            where=where(module),
        )
    first = next(violations(module, stage), None)
    if first is not None:
        raise InputError(
            f"the module says it is {stage.title} ({ATTRIBUTE}), but {op_name(first.op)}: {first.reason}",
            hint=f"leave {ATTRIBUTE} out to let the operations tell",
            where=where(first.op),
        )
    return stage


def _told_stage(module: ModuleOp) -> Stage:
    """The latest stage that leaves such operations and attributes."""
    names = {op_name(op) for op in module.walk()}
    if names & _CODE:
        return Stage.EMITTED
    if names & _PROGRAMS:
        buffers = [op for op in module.walk() if op_name(op) == "sram.alloc"]
        return Stage.ALLOCATED if buffers and all("address" in op.properties for op in buffers) else Stage.LOWERED
    if set(module.attributes) >= _MEMORY:
        return Stage.LAID_OUT
    if any(name.startswith("pim.") for name in names):
        return Stage.PARTITIONED
    work = [op for op in module.walk() if is_compute(op)]
    for stage in (Stage.PLACED, Stage.ANNOTATED):
        if work and all(RULES[stage].attributes <= set(op.attributes) for op in work):
            return stage
    return Stage.IMPORTED


def violations(module: ModuleOp, stage: Stage) -> Iterator[Violation]:
    """What in ``module`` the rule of ``stage`` does not allow."""
    rule = RULES[stage]
    for name in sorted(rule.module_attributes - set(module.attributes)):
        yield Violation(module, f"it has no {name}, as the stage {stage.title} needs")
    for op in module.walk():
        name = op_name(op)
        dialect = name.partition(".")[0]
        if dialect not in rule.dialects:
            yield Violation(op, f"dialect {dialect} is not allowed at the stage {stage.title}")
        elif name in rule.forbidden:
            yield Violation(op, f"not allowed at the stage {stage.title}")
        elif is_compute(op):
            missing = sorted(rule.attributes - set(op.attributes))
            if missing:
                yield Violation(op, f"has no {', '.join(missing)}, as the stage {stage.title} needs")


def is_compute(op: Operation) -> bool:
    """Whether ``op`` is an `nn` operation that does work (not a weight or a constant)."""
    return isinstance(op, nn.NnOp) and not isinstance(op, nn.ParamOp | nn.ConstantOp)


def op_name(op: Operation) -> str:
    """The name of an operation, also of one of an unregistered dialect."""
    return op.op_name.data if isinstance(op, UnregisteredOp) else op.name
