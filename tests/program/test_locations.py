"""Every instruction of a compiled model says which module of the Hugging Face model it comes from."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from compiled import Compilation

from pimc.isa.container import load_program
from pimc.isa.program import Program

#: The modules of a LlamaForCausalLM with layers outlined (``*``).
MODULE = re.compile(
    r"lm_head|model\.(embed_tokens|norm|rotary_emb|layers\.\*(\.(self_attn|mlp|input_layernorm|post_attention_layernorm)"
    r"(\.\w+)?)?)"
)
#: Words of a stream that belong to no module: its end.
STRUCTURAL = {"entry": 1}


@pytest.fixture(scope="module")
def program(compilation: Compilation) -> Program:
    """The compiled program."""
    return load_program(compilation.binary)


def modules(program: Program, stream: str) -> Counter[str]:
    """How many words of a stream come from each location ("": unknown)."""
    locations = program.locations[stream]
    assert len(locations.index) == len(program.code[stream])
    return Counter(locations.table[index] if index >= 0 else "" for index in map(int, locations.index))


def test_every_word_has_a_location(program: Program) -> None:
    for entry in program.entries.values():
        for stream in {*entry.cores.values(), *entry.groups.values()}:
            for location, words in modules(program, stream).items():
                parts = location.split(", ")  # fused operations have several
                known = all(MODULE.fullmatch(part) for part in parts)
                assert known or words <= STRUCTURAL.get(location, 0), f"{stream}: {words} words from '{location}'"


@pytest.mark.parametrize(
    "module",
    ["model.embed_tokens", "model.layers.*.self_attn.q_proj", "model.layers.*.mlp.down_proj", "model.norm", "lm_head"],
)
def test_every_module_has_words(program: Program, module: str) -> None:
    for entry in program.entries.values():
        found = modules(program, entry.cores[0]) + modules(program, entry.groups[0])
        assert any(module in location.split(", ") for location in found)


def test_commands_of_the_banks_come_from_linear_layers(program: Program) -> None:
    stream = program.entries["decode"].groups[0]
    linear = sum(
        words for location, words in modules(program, stream).items() if location.endswith(("_proj", "lm_head"))
    )
    assert linear > 0.9 * len(program.code[stream])
