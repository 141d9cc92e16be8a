"""Placement policies, and the annotations that they build on."""

from __future__ import annotations

import pytest
from tiny_models import SMOLLM2, llama, run_pass
from xdsl.dialects.builtin import ModuleOp

from pimc.diagnostics import PimcError, UsageError
from pimc.ir import nn
from pimc.passes.annotate import AnnotatePass
from pimc.passes.outline import OutlinePass
from pimc.passes.place import PlacePass
from pimc.passes.placement import Placement, find_policy


def placed(step: PlacePass) -> ModuleOp:
    module = llama(SMOLLM2)
    for each in (OutlinePass(), AnnotatePass(), step):
        run_pass(module, each)
    return module


def domains(module: ModuleOp, entry: str, kind: type[nn.NnOp]) -> set[str]:
    return {
        op.attributes["pim.domain"].data
        for function in module.ops
        if getattr(getattr(function, "sym_name", None), "data", "").startswith(entry)
        for op in function.walk()
        if isinstance(op, kind)
    }


def test_paper_is_phase_aware() -> None:
    module = placed(PlacePass())
    assert domains(module, "decode", nn.LinearOp) == {"hbm"}
    assert domains(module, "prefill_layer", nn.LinearOp) == {"tcu"}
    assert domains(module, "decode", nn.AttentionOp) == {"pim_unit"}
    assert domains(module, "prefill", nn.AttentionOp) == {"tcu"}
    assert domains(module, "decode", nn.RmsNormOp) == {"vcu"}
    assert domains(module, "decode", nn.EmbeddingOp) == {"xfer"}


def test_cost_agrees_with_the_paper_on_weights_and_says_the_times() -> None:
    module = placed(PlacePass(policy="cost"))
    assert domains(module, "decode", nn.LinearOp) == {"hbm"}
    assert domains(module, "prefill_layer", nn.LinearOp) == {"tcu"}
    reasons = [str(op.attributes["pim.reason"]) for op in module.walk() if isinstance(op, nn.LinearOp)]
    assert all("hbm" in text or "tcu" in text for text in reasons)
    assert all("us" in text for text in reasons)


def test_every_operation_has_a_domain_and_a_reason() -> None:
    module = placed(PlacePass())
    for op in module.walk():
        if isinstance(op, nn.NnOp) and not isinstance(op, nn.ParamOp | nn.ConstantOp):
            assert {"pim.domain", "pim.reason", "pim.class", "pim.flops"} <= set(op.attributes)


def everything_on_vectors(op: nn.NnOp, machine: object) -> Placement:
    return Placement("vcu", "a user's own policy")


def nowhere(op: nn.NnOp, machine: object) -> Placement:
    return Placement("abacus", "a domain that the target lacks")


def test_a_policy_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "my_policies", sys.modules[__name__])
    module = placed(PlacePass(policy="my_policies:everything_on_vectors"))
    assert domains(module, "decode", nn.LinearOp) == {"vcu"}
    with pytest.raises(PimcError, match="abacus"):
        placed(PlacePass(policy="my_policies:nowhere"))
    with pytest.raises(UsageError, match="cannot load"):
        find_policy("my_policies:none")


def test_an_unknown_policy_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as error:
        find_policy("best")
    assert "paper" in str(error.value.hint)


def test_annotations_count_the_context() -> None:
    module = llama()
    flops = []
    for context in (1, 16):
        run_pass(module, AnnotatePass(context=context))
        op = next(op for op in module.walk() if isinstance(op, nn.AttentionOp))
        flops.append(op.attributes["pim.flops"].value.data)
    assert flops[1] == 16 * flops[0]
