"""Damaged IR: whatever the text, an error of one line with a place, or a program."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutations_text import mutants
from safetensors.numpy import save_file

from pimc.diagnostics import InputError
from pimc.ir.context import parse_module

MODULE = """
func.func @main(%x: tensor<2x8xf32> {pimc.name = "x"}) -> (tensor<2x4xf32> {pimc.name = "y"}) {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<4x8xf32>
  %b = "nn.param"() <{name = "b"}> : () -> tensor<4xf32>
  %h = "nn.linear"(%x, %w, %b) : (tensor<2x8xf32>, tensor<4x8xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %c = "nn.constant"() <{value = dense<[0.5, 1.0, -2.0, 3.0]> : tensor<4xf32>}> : () -> tensor<4xf32>
  %s = "nn.add"(%h, %c) : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %p = "nn.softmax"(%s) <{axis = 1 : i64}> : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return %p : tensor<2x4xf32>
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The module in a file, with its weights."""
    (tmp_path / "m.mlir").write_text(MODULE)
    save_file({"w": np.ones((4, 8), np.float32), "b": np.ones(4, np.float32)}, tmp_path / "m.safetensors")
    return tmp_path / "m.mlir"


def test_damaged_modules_end_in_an_error_line(pimc_cli: Callable, source: Path) -> None:
    for seed, text in mutants("default", [MODULE], 25):
        source.write_text(text)
        result = pimc_cli("compile", source, "-o", source.with_suffix(".pimx"))
        assert result.code in {0, 1}, f"{seed}: {result.err}"
        if result.code:
            assert result.error_lines[0].startswith(f"pimc: error: {source}"), f"{seed}: {result.err}"
            assert not source.with_suffix(".pimx").exists(), seed
        source.with_suffix(".pimx").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("axis = 1 : i64", "axis = 1 : i642", "i642"),  # a type that no array holds
        ("axis = 1", f"axis = {'9' * 5000}", "integer"),
        ("dense<[0.5", "dense<[1e400", ""),
        ("[0.5, 1.0, -2.0, 3.0]", "array<i642: 0>", ""),
    ],
)
def test_what_the_parser_trips_over(pimc_cli: Callable, source: Path, old: str, new: str, message: str) -> None:
    source.write_text(MODULE.replace(old, new))
    result = pimc_cli("compile", source, "-o", source.with_suffix(".pimx"))
    assert result.code == 1, result.err
    assert result.error_lines[0].startswith(f"pimc: error: {source}:")
    assert message in result.error_lines[0]
    assert all(len(line) < 400 for line in result.error_lines[1:])


def test_a_weight_without_its_region(pimc_cli: Callable, source: Path) -> None:
    """What `layout` says of one weight is missing in its dump: the same binary, as the module says it too."""
    whole, again = source.parent / "whole.pimx", source.parent / "again.pimx"
    assert pimc_cli("compile", source, "-o", whole, "--dump-ir", source.parent / "ir").code == 0
    (dump,) = (source.parent / "ir").glob("*-layout.mlir")
    assert pimc_cli("compile", dump, "-o", whole).code == 0
    text, count = re.subn(r'(<\{name = "b"\}>) \{pim.region = .*?\]\}', r"\1", dump.read_text())
    assert count == 1
    dump.write_text(text)
    result = pimc_cli("compile", dump, "-o", again)
    assert result.code == 0, result.err
    assert again.read_bytes() == whole.read_bytes()


def test_an_error_shows_the_line_and_where_operands_are_made(pimc_cli: Callable, source: Path) -> None:
    source.write_text(MODULE.replace("tensor<4x8xf32>", "tensor<4x7xf32>"))
    lines = pimc_cli("opt", source).error_lines
    assert lines[0].startswith(f"pimc: error: {source}:5:3: nn.linear does not verify: ")
    assert lines[1].lstrip().startswith('%h = "nn.linear"(%x, %w, %b)')
    assert lines[2].index("^") == lines[1].index('"nn.linear"')
    assert lines[2].count("^") == len('"nn.linear"')
    assert any(
        line.startswith(f"  note: {source}:3:3: operand 1 is made here, of type tensor<4x7xf32>") for line in lines
    )


def test_an_error_of_a_pass_shows_the_line(pimc_cli: Callable, source: Path) -> None:
    lines = pimc_cli("opt", source, "-p", "place").error_lines
    assert lines[0].startswith(f"pimc: error: {source}:5:3: pass 'place' needs an annotated module: nn.linear: ")
    assert "^^^" in lines[2]
    named = MODULE.replace("-> tensor<2x4xf32>\n  %c", '-> tensor<2x4xf32> loc("model.head":0:0)\n  %c')
    source.write_text(named.replace("8xf32>", "4096xf32>"))
    result = pimc_cli("compile", source, "-o", source.with_suffix(".pimx"), "-p", "...,tile{buffers=0},...")
    assert result.code in {1, 2}


@pytest.mark.parametrize(
    "text", ['"' + "a" * 5000, '"' + "a" * 50 + "\\q", '"' + "\\n" * 3000 + '\n"'], ids=["long", "escape", "line"]
)
def test_a_string_that_does_not_end_is_refused_at_once(text: str) -> None:
    """The lexer's pattern once took time that doubled with every character."""
    with pytest.raises(InputError, match="string"):
        parse_module(text)


def test_strings_are_read_as_ever() -> None:
    module = parse_module('builtin.module attributes {a = "x\\n\\"\\\\\\41", b = ""} {}')
    assert [module.attributes[key].data for key in "ab"] == ['x\n"\\A', ""]


@pytest.mark.parametrize("width", [1 << 24, 1 << 62, 1 << 80])
def test_an_integer_type_is_not_wider_than_memory(width: int) -> None:
    with pytest.raises(InputError, match="integer types have at most 16777215 bits"):
        parse_module(f"builtin.module attributes {{a = 1 : i{width}}} {{}}")
