"""Writes ``engine/_dispatch.py`` from the ISA tables: ``python -m pimc.runtime_sim.generate_dispatch``.

Each instruction of a table becomes a case that calls the semantic function its entry names.  A new instruction is
one entry in the table and one function of that name: scalar operations and branches in ``semantics_scalar``, vector
operations of a known operand shape in ``semantics_vector``, others in ``semantics_matrix`` (of the table ``WORDS``: in
``semantics_words``) with a ``describe_`` function in ``describe``, controller commands in ``commands`` and
``control_commands``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from pimc.isa.hbm import HBM_ISA
from pimc.isa.sram import SRAM_ISA
from pimc.isa.sram_words import WORDS
from pimc.runtime_sim.instruction_classes import CLASSES, TYPED, class_of

OUTPUT = Path(__file__).parent / "engine" / "_dispatch.py"

#: How the describe function of a matrix instruction is called; default: with (m, c, core, s).
_MATRIX_DESCRIBE = {
    "vredp": "describe_vredp(m, c, core, s, False)",
    "vredpb": "describe_vredp(m, c, core, s, True)",
    "pimmv_a": "describe_pimmv(m, c, core, s, False)",
    "pimmv_c": "describe_pimmv(m, c, core, s, False)",
    "pimmv_aw": "describe_pimmv(m, c, core, s, True)",
    "pimmv_cw": "describe_pimmv(m, c, core, s, True)",
    "tmm_nk": "describe_tmm(m, c, core, s, True)",
    "tmmc_nk": "describe_tmm(m, c, core, s, True)",
    "tmm_kn": "describe_tmm(m, c, core, s, False)",
    "tmmc_kn": "describe_tmm(m, c, core, s, False)",
    "twb": "describe_accumulators(m, c, core, s, 2, False)",
    "twb_f": "describe_accumulators(m, c, core, s, 4, False)",
    "tld_f": "describe_accumulators(m, c, core, s, 4, True)",
    "select16": "describe_select(m, c, s, 2)",
    "select32": "describe_select(m, c, s, 4)",
    "strided16": "describe_strided(m, c, core, s, 2)",
    "strided32": "describe_strided(m, c, core, s, 4)",
    "argmax16": "describe_reduction(m, c, s, 2)",
    "argmax32": "describe_reduction(m, c, s, 4)",
    "int_to_float": "describe_unary(m, c, s, 4, 4)",
    "float_to_int": "describe_unary(m, c, s, 4, 4)",
    **{
        i.semantics: f"describe_binary(m, c, s, 4, {2 if i.mnemonic in ('veq.i', 'vlt.i', 'vle.i') else 4})"
        for i in WORDS
        if i.mnemonic.endswith(".i")
    },
}


def _ranges(numbers: list[int]) -> Iterator[str]:
    """Conditions that ``op`` is one of ``numbers`` (sorted): runs of three and more as a range."""
    for _, pairs in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in pairs]
        if len(run) > 2:
            yield f"{run[0]} <= op <= {run[-1]}"
        else:
            yield from (f"op == {number}" for number in run)


def _cases(items: Iterable[tuple[str, list[int]]], indent: str = "    ") -> list[str]:
    lines = []
    for call, numbers in items:
        condition = " or ".join(_ranges(sorted(numbers)))
        lines.append(f"{indent}if {condition}:")
        lines.append(f"{indent}    {call}")
    return lines


def _grouped(wanted: Iterable[str], call: str) -> list[tuple[str, list[int]]]:
    """Cases of the core instructions of the wanted classes, those of one semantic function together."""
    classes = tuple(wanted)
    groups: dict[str, list[int]] = {}
    for number, instruction in enumerate(SRAM_ISA.instructions):
        if class_of(instruction) in classes:
            name = instruction.semantics
            base = name[:-2] if class_of(instruction) in TYPED else name
            groups.setdefault(base, []).append(number)
    return [(call.format(name=name), numbers) for name, numbers in groups.items()]


def _function(signature: str, doc: str, lines: list[str], last: str | None = None) -> list[str]:
    body = [f"def {signature}:", f'    """{doc}"""', *lines]
    if last:
        body.append(f"    return {last}")
    return ["", "", "@jit", *body]


def _imports(module: str, names: Iterable[str]) -> list[str]:
    return [f"from pimc.runtime_sim.engine.{module} import (", *(f"    {name}," for name in sorted(set(names))), ")"]


def _semantic_names(*classes: str) -> list[str]:
    return [
        instruction.semantics[:-2] if class_of(instruction) in TYPED else instruction.semantics
        for instruction in SRAM_ISA.instructions
        if class_of(instruction) in classes
    ]


def generate() -> str:
    """Text of ``engine/_dispatch.py``."""
    matrix = _semantic_names("matrix")
    words = {instruction.semantics for instruction in WORDS}
    describes = {_MATRIX_DESCRIBE.get(name, f"describe_{name}(m, c, core, s)").split("(")[0] for name in matrix}
    commands = [f"command_{i.semantics}" for i in HBM_ISA.instructions if i.unit != "control"]
    control = [f"command_{i.semantics}" for i in HBM_ISA.instructions if i.unit == "control"]
    scalar = ("scalar", "divide")
    vector = ("vector_binary", "vector_scalar", "vector_fill", "vector_unary", "vector_reduce")
    lines = [
        '"""Cases of every instruction, written by pimc.runtime_sim.generate_dispatch from the ISA tables."""',
        "",
        "# ruff: noqa: C901, PLR0912, PLR0915, PLR1714",
        "# fmt: off",
        "from __future__ import annotations",
        "",
        "import numpy as np",
        "",
        *_imports("commands", commands),
        *_imports("control_commands", control),
        *_imports("describe", describes),
        "from pimc.runtime_sim.engine.jit import jit",
        *_imports("semantics_matrix", set(matrix) - words),
        *_imports("semantics_scalar", _semantic_names(*scalar, "branch")),
        *_imports("semantics_vector", _semantic_names(*vector)),
        *_imports("semantics_words", words),
        "from pimc.runtime_sim.engine.state import FloatArray, Record",
        "",
        *(f"CLASS_{name.upper()} = {number}" for number, name in enumerate(CLASSES)),
    ]
    lines += _function("scalar_result(op: int, a: int, b: int) -> int", "Result of a scalar operation, not wrapped.",
                       _cases(_grouped(scalar, "return {name}(a, b)")), "0")  # fmt: skip
    lines += _function("branch_taken(op: int, a: int, b: int) -> bool", "Whether a branch is taken.",
                       _cases(_grouped(("branch",), "return {name}(a, b)")), "False")  # fmt: skip
    lines += _function("vector_binary(op: int, x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None",
                       "Elementwise operations on two vectors.",
                       _cases(_grouped(("vector_binary",), "{name}(x, y, out, n)")))  # fmt: skip
    lines += _function("vector_scalar(op: int, x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None",
                       "Elementwise operations on a vector and a scalar.",
                       _cases(_grouped(("vector_scalar", "vector_fill"), "{name}(x, s, out, n)")))  # fmt: skip
    lines += _function("vector_unary(op: int, x: FloatArray, out: FloatArray, n: int) -> None",
                       "Elementwise operations on one vector.",
                       _cases(_grouped(("vector_unary",), "{name}(x, out, n)")))  # fmt: skip
    lines += _function("vector_reduce(op: int, x: FloatArray, n: int, lanes: int, partial: FloatArray) -> np.float32",
                       "Reductions.", _cases(_grouped(("vector_reduce",), "return {name}(x, n, lanes, partial)")),
                       "np.float32(0.0)")  # fmt: skip
    describe_cases: dict[str, list[int]] = {}
    for name, numbers in _grouped(("matrix",), "{name}"):
        describe_cases.setdefault(_MATRIX_DESCRIBE.get(name, f"describe_{name}(m, c, core, s)"), []).extend(numbers)
    lines += _function("describe_matrix(m: Record, c: int, core: Record, s: Record, op: int) -> None",
                       "Ranges and work of the other instructions.",
                       _cases(describe_cases.items()))  # fmt: skip
    lines += _function("execute_matrix(m: Record, c: int, s: Record, op: int) -> None",
                       "Data of the other instructions.", _cases(_grouped(("matrix",), "{name}(m, c, s)")))  # fmt: skip
    stream = [
        (f"return command_{instruction.semantics}(m, p, h, at, now)", [number])
        for number, instruction in enumerate(HBM_ISA.instructions)
    ]
    lines += _function("run_command(m: Record, p: int, h: Record, at: int, op: int, now: int) -> int",
                       "Run the controller command at machine address ``at``; returns when the next may start.",
                       _cases(stream), "now")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the file, or with ``--check`` say whether it is current."""
    text = generate()
    if "--check" in sys.argv[1:]:
        return 0 if OUTPUT.read_text(encoding="utf-8") == text else 1
    OUTPUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
