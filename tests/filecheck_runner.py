"""Runs FileCheck-style tests inside the process: ``// RUN: passes`` and CHECK lines in a ``.mlir`` file."""

from __future__ import annotations

import re
from pathlib import Path

from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser
from xdsl.passes import PassPipeline

from pimc.diagnostics import PimcError
from pimc.ir.context import make_context, parse_module, verify_module
from pimc.passes.annotate import AnnotatePass
from pimc.passes.layout import LayoutPass
from pimc.passes.outline import OutlinePass
from pimc.passes.partition import PartitionPass
from pimc.passes.place import PlacePass

PASSES = {p.name: p for p in (OutlinePass, AnnotatePass, PlacePass, PartitionPass, LayoutPass)}


def run_passes(text: str, pipeline: str) -> str:
    """The module after a textual pipeline, in custom form; an error as ``error: message``."""
    context = make_context()
    try:
        module = parse_module(text, context)
        available = {name: (lambda p=p: p) for name, p in PASSES.items()}
        PassPipeline.parse_spec(available, pipeline).apply(context, module)
        verify_module(module)
    except PimcError as error:
        return f"error: {error}\n"
    return str(module)


def check_file(path: Path) -> str | None:
    """Run a test file; None if it passes, else the output that did not match."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^// RUN: (.*)$", text, re.MULTILINE)
    assert found, f"{path} has no RUN line"
    output = run_passes(text, found[1].strip())
    options = Options(match_filename=str(path))
    parser = Parser.from_opts(options)
    return None if Matcher(options, FInput("output", output), parser).run() == 0 else output
