"""Which units can do an operation, each with the lowering that does it there.

``CHOICES`` has every operation that has more than one unit, or another than the vector unit; any other is done on the
vector unit.  ``place`` chooses among what can do an operation here, ``partition``, ``tile`` and ``lower`` read what
was chosen (:func:`place_of`).  An operation that ``place`` has not seen gets the first choice that can do it.

The unit is that of the arithmetic.  Whatever it is, the scalar unit counts, the transfer and network units bring
operands and take results away, the transpose unit turns matrices, and the vector unit rounds, adds partial sums and
biases, and computes the softmax of attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import TypeAlias, cast

from xdsl.dialects.builtin import IntegerType, StringAttr
from xdsl.ir import Operation

from pimc.backends.lower.attention import lower_attention_of_rows, lower_attention_of_token, lower_kv_append
from pimc.backends.lower.attention_full import lower_attention_full
from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.conv import lower_computed_conv, lower_conv
from pimc.backends.lower.embedding import lower_embedding
from pimc.backends.lower.gemm import lower_gemm
from pimc.backends.lower.gemv import lower_gemv
from pimc.backends.lower.indexing import lower_gather
from pimc.backends.lower.matmul import lower_matmul, lower_vector_matmul
from pimc.backends.lower.matrix_unit import on_vectors
from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.locations import where
from pimc.ir.nn.base import shape_of
from pimc.ir.pim.conv import ConvOp
from pimc.ir.pim.encoder import AttentionFullOp
from pimc.ir.pim.ops import AttentionOp, EmbeddingOp, GemmOp, GemvOp, KvAppendOp
from pimc.targets.target import Target

Lowering: TypeAlias = Callable[[LoweringContext, Operation], None]
Refusal: TypeAlias = Callable[[Operation], str | None]
"""Why an operation of a kind cannot be done; None if it can."""

DOMAIN, REASON = "pim.domain", "pim.reason"
#: Bytes up to which a stored table is loaded whole to look up rows in it.
LOAD_LIMIT = 32 << 10


def _never(op: Operation) -> None:
    return None


@dataclass(frozen=True)
class Choice:
    """A kind of unit (``unit.kind`` of a target) that can do an operation.

    ``forms``: what ``partition`` makes of the operation (itself, if that is there), with the lowering of each.
    ``refusal``: why it cannot do an operation after all.
    """

    unit: str
    forms: Mapping[type[Operation], Lowering] = field(default_factory=dict)
    refusal: Refusal = _never


def _several_rows(op: Operation) -> str | None:
    """Refuses all but one row."""
    rows = prod(shape_of(op.operands[0])[:-1])
    return None if rows == 1 else f"it takes one row at a time, and there are {rows}"


def _integers(op: Operation) -> str | None:
    integers = isinstance(nn.tensor_of(op.operands[0]).element_type, IntegerType)
    return "it multiplies no integers" if integers else None


def is_lookup(op: Operation) -> bool:
    """Whether rows of a stored matrix are read where it lies; a small one that is indexed is loaded whole."""
    table = op.operands[0]
    if not isinstance(table.owner, nn.ParamOp):
        return False
    if isinstance(op, nn.GatherOp):
        rows = len(shape_of(table)) == 2 and op.axis.value.data % 2 == 0
        return rows and nn.tensor_bytes(table.type) > LOAD_LIMIT
    return True


def _no_lookup(op: Operation) -> str | None:
    return None if is_lookup(op) else "it reads rows of a large stored table, and this is none"


def _lookup(op: Operation) -> str | None:
    return "the table is too large for local memory" if is_lookup(op) else None


def _forms(*forms: tuple[type[Operation], Callable[..., None]]) -> Mapping[type[Operation], Lowering]:
    return MappingProxyType({form: cast(Lowering, lowering) for form, lowering in forms})


VECTOR = (Choice("vector"),)
#: The units that can do an operation, the first choice first.
CHOICES: Mapping[type[Operation], tuple[Choice, ...]] = MappingProxyType({
    nn.LinearOp: (
        Choice("bank_pim", _forms((GemvOp, lower_gemv)), _several_rows),
        Choice("systolic", _forms((GemmOp, lower_gemm))),
        Choice("vector", _forms((GemmOp, on_vectors(lower_gemm)))),
    ),
    nn.MatmulOp: (
        Choice("systolic", _forms((nn.MatmulOp, lower_matmul)), _integers),
        Choice("vector", _forms((nn.MatmulOp, lower_vector_matmul))),
    ),
    nn.AttentionOp: (
        Choice("sram_pim", _forms((AttentionOp, lower_attention_of_token)), _several_rows),
        Choice("systolic", _forms((AttentionOp, lower_attention_of_rows))),
        Choice("vector", _forms((AttentionOp, on_vectors(lower_attention_of_rows)))),
    ),
    nn.AttentionFullOp: (
        Choice("systolic", _forms((AttentionFullOp, lower_attention_full))),
        Choice("vector", _forms((AttentionFullOp, on_vectors(lower_attention_full)))),
    ),
    nn.ConvOp: (
        Choice("systolic", _forms((ConvOp, lower_conv), (nn.ConvOp, lower_computed_conv))),
        Choice("vector", _forms((ConvOp, on_vectors(lower_conv)), (nn.ConvOp, on_vectors(lower_computed_conv)))),
    ),
    nn.CacheWriteOp: (Choice("transfer", _forms((KvAppendOp, lower_kv_append))),),
    nn.EmbeddingOp: (Choice("transfer", _forms((EmbeddingOp, lower_embedding)), _no_lookup),),
    nn.GatherOp: (
        Choice("transfer", _forms((EmbeddingOp, lower_embedding)), _no_lookup),
        Choice("vector", _forms((nn.GatherOp, lower_gather)), _lookup),
    ),
})  # fmt: skip


def _by_form() -> Mapping[type[Operation], tuple[Choice, ...]]:
    found: dict[type[Operation], tuple[Choice, ...]] = {}
    for kind, choices in CHOICES.items():
        for form in {form for choice in choices for form in choice.forms} - {kind}:
            found[form] = (*found.get(form, ()), *(choice for choice in choices if form in choice.forms))
    return MappingProxyType({**found, **CHOICES})


_BY_FORM = _by_form()


def choices_for(op: Operation) -> tuple[Choice, ...]:
    """Every kind of unit that does operations like ``op``, the first choice first."""
    return _BY_FORM.get(type(op), VECTOR)


@dataclass(frozen=True)
class Place:
    """A domain of a target that can do an operation, and as what."""

    domain: str
    choice: Choice


def places_for(op: Operation, target: Target) -> tuple[Place, ...]:
    """The domains of ``target`` that can do ``op``, the first choice first."""
    return tuple(
        Place(domain.name, choice)
        for choice in choices_for(op)
        if choice.refusal(op) is None
        for domain in target.domains
        if target.unit(domain.unit).kind == choice.unit
    )


def refusal(op: Operation, target: Target, why: str = "", domain: str | None = None) -> InputError:
    """The error for an operation in a domain that cannot do it, or for one that no domain can do; it names those that
    can.
    """
    what = "by no domain" if domain is None else f"in domain {domain!r}"
    if domain is not None:
        kind = target.unit(target.domain(domain).unit).kind
        whys = [choice.refusal(op) for choice in choices_for(op) if choice.unit == kind]
        why = next((text for text in whys if text), f"a {kind} unit has no lowering of it")
    message = f"{op.name} cannot be done {what}" if domain else f"{op.name} can be done {what}"
    return InputError(message + (f": {why}" if why else ""), where=where(op), hint=_able(op, target))


def _able(op: Operation, target: Target) -> str:
    able = dict.fromkeys(place.domain for place in places_for(op, target))
    if able:
        return f"domains that can: {', '.join(able)}"
    whys = [f"{choice.unit} ({choice.refusal(op) or 'not in the target'})" for choice in choices_for(op)]
    return f"target {target.name} has no domain that can; kinds of units that may: {', '.join(whys)}"


def place_of(op: Operation, target: Target) -> Place:
    """Where ``op`` has been placed, and how it is done there; the first choice for one that ``place`` has not seen.

    Raises InputError, which names the domains that can, where its domain cannot do it.
    """
    places = places_for(op, target)
    domain = op.attributes.get(DOMAIN)
    if not isinstance(domain, StringAttr):
        if not places:
            raise refusal(op, target)
        return places[0]
    chosen = next((place for place in places if place.domain == domain.data), None)
    if chosen is None:
        raise refusal(op, target, domain=domain.data)
    return chosen


def choice_of(op: Operation, target: Target) -> Choice:
    """How ``op`` is done where it has been placed; see :func:`place_of`."""
    return place_of(op, target).choice
