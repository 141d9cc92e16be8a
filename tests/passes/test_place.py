"""Placement policies, and the annotations that they build on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import SMOLLM2, llama, run_pass
from xdsl.dialects.builtin import ModuleOp, StringAttr

from pimc.backends.lower.choices import CHOICES, choices_for
from pimc.backends.lower.entry import LOWERINGS
from pimc.diagnostics import InputError, PimcError, UsageError
from pimc.ir import nn
from pimc.passes.annotate import AnnotatePass
from pimc.passes.outline import OutlinePass
from pimc.passes.partition import PartitionPass
from pimc.passes.pipeline import parse_pipeline
from pimc.passes.place import PlacePass
from pimc.passes.policy import Placement, Policy, first_choice
from pimc.passes.registry import PassRegistry
from pimc.policies import names


def placed(policy: str | Policy = "paper") -> ModuleOp:
    chosen = PassRegistry().policy(policy) if isinstance(policy, str) else policy
    module = llama(SMOLLM2)
    for each in (OutlinePass(), AnnotatePass(), PlacePass()):
        run_pass(module, each, policy=chosen)
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
    module = placed()
    assert domains(module, "decode", nn.LinearOp) == {"hbm"}
    assert domains(module, "prefill_layer", nn.LinearOp) == {"tcu"}
    assert domains(module, "decode", nn.AttentionOp) == {"pim_unit"}
    assert domains(module, "prefill", nn.AttentionOp) == {"tcu"}
    assert domains(module, "decode", nn.RmsNormOp) == {"vcu"}
    assert domains(module, "decode", nn.EmbeddingOp) == {"xfer"}


def test_cost_agrees_with_the_paper_on_weights_and_says_the_times() -> None:
    module = placed("cost")
    assert domains(module, "decode", nn.LinearOp) == {"hbm"}
    assert domains(module, "prefill_layer", nn.LinearOp) == {"tcu"}
    reasons = [str(op.attributes["pim.reason"]) for op in module.walk() if isinstance(op, nn.LinearOp)]
    assert all("hbm" in text or "tcu" in text for text in reasons)
    assert all("us" in text for text in reasons)


def test_policies_leave_units_without_work() -> None:
    module = placed("no-bank-pim")
    assert domains(module, "decode", nn.LinearOp) == {"tcu"}
    module = placed("no-sram-pim")
    assert domains(module, "decode", nn.AttentionOp) == {"tcu"}
    assert domains(module, "decode", nn.LinearOp) == {"hbm"}


def test_every_operation_has_a_domain_and_a_reason() -> None:
    module = placed()
    for op in module.walk():
        if isinstance(op, nn.NnOp) and not isinstance(op, nn.ParamOp | nn.ConstantOp):
            assert {"pim.domain", "pim.reason", "pim.class", "pim.flops"} <= set(op.attributes)


def test_every_choice_has_a_lowering() -> None:
    for kind, choices in CHOICES.items():
        assert choices, kind
        assert all(choice.forms for choice in choices), kind
        assert kind not in LOWERINGS
        for form in (form for choice in choices for form in choice.forms):
            assert form not in LOWERINGS
            assert choices_for_form(form) <= {choice.unit for choice in choices} | {"transfer"}


def choices_for_form(form: type[object]) -> set[str]:
    return {choice.unit for choices in CHOICES.values() for choice in choices if form in choice.forms}


def test_what_has_no_choices_is_done_on_the_vector_unit() -> None:
    module = placed()
    norms = [op for op in module.walk() if isinstance(op, nn.RmsNormOp)]
    assert [choice.unit for choice in choices_for(norms[0])] == ["vector"]


def on(domain: str, kind: type[nn.NnOp]) -> Policy:
    """The default policy, but for one kind of operation."""
    otherwise = first_choice()

    def place(op: nn.NnOp, machine: object) -> Placement:
        found = otherwise(op, machine)
        return replace(found, domain=domain) if isinstance(op, kind) else found

    return Policy("mine", "a user's own", place)


@pytest.mark.parametrize(
    ("domain", "kind", "message", "can"),
    [
        ("pim_unit", nn.LinearOp, "nn.linear cannot be done in domain 'pim_unit': a sram_pim unit", "tcu"),
        ("hbm", nn.LinearOp, "'hbm': it takes one row at a time, and there are 64", "tcu"),
        ("pim_unit", nn.AttentionOp, "'pim_unit': it takes one row at a time", "tcu"),
        ("hbm", nn.AttentionOp, "nn.attention cannot be done in domain 'hbm'", "tcu"),
        ("tcu", nn.RmsNormOp, "nn.rms_norm cannot be done in domain 'tcu'", "vcu"),
        ("vcu", nn.EmbeddingOp, "nn.embedding cannot be done in domain 'vcu'", "xfer"),
    ],
)
def test_a_domain_that_cannot_is_refused_with_those_that_can(
    domain: str, kind: type[nn.NnOp], message: str, can: str
) -> None:
    with pytest.raises(InputError) as error:
        placed(on(domain, kind))
    assert message in str(error.value)
    assert can in str(error.value.hint)


def test_a_placement_that_a_later_pass_changed_is_refused_too() -> None:
    module = placed()
    for op in module.walk():
        if isinstance(op, nn.LinearOp):
            op.attributes["pim.domain"] = StringAttr("pim_unit")
    with pytest.raises(InputError, match=r"nn\.linear cannot be done in domain 'pim_unit'"):
        run_pass(module, PartitionPass())


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(PimcError, match="abacus"):
        placed(on("abacus", nn.LinearOp))


PLUGIN = """
from pimc.passes.policy import Policy, first_choice

HEADS_FIRST = Policy("heads-first", "Algorithm 1 for cached attention too", first_choice(),
                     {"partition": {"rounds": "paper"}, "tile": {"key-share": 20}})
"""


def test_a_policy_of_a_plugin_sets_options_of_passes(tmp_path: Path) -> None:
    file = tmp_path / "heads_first.py"
    file.write_text(PLUGIN)
    registry = PassRegistry([str(file)])
    assert "heads-first" in registry.policy_names()
    policy = registry.policy("heads-first")
    partition, tile = parse_pipeline("partition,tile", registry, policy)
    assert str(partition) == "partition{rounds=paper}"
    assert str(tile) == "tile{key-share=20}"
    (stated,) = parse_pipeline("partition{rounds=time context=8}", registry, policy)
    assert stated == PartitionPass(rounds="time", context=8)
    with pytest.raises(UsageError, match="already a policy 'heads-first'"):
        registry.load_plugin(str(file))


def test_an_unknown_policy_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="no policy 'best'") as error:
        PassRegistry().policy("best")
    assert "paper" in str(error.value.hint)
    assert set(names()) <= set(PassRegistry().policy_names())
    assert all(policy.summary for policy in PassRegistry().policies())


def test_a_policy_with_an_option_that_there_is_not_is_refused() -> None:
    wrong = Policy("wrong", "", first_choice(), {"partition": {"colour": "red"}})
    with pytest.raises(UsageError, match="no option 'colour'"):
        parse_pipeline("partition", PassRegistry(), wrong)


def test_annotations_count_the_context() -> None:
    module = llama()
    flops = []
    for context in (1, 16):
        run_pass(module, AnnotatePass(context=context))
        op = next(op for op in module.walk() if isinstance(op, nn.AttentionOp))
        flops.append(op.attributes["pim.flops"].value.data)
    assert flops[1] == 16 * flops[0]
