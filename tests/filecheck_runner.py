"""Runs FileCheck-style tests inside the process.

A ``.mlir`` file has ``// RUN: passes``, perhaps ``// SET: key=value`` (figures of the target) and
``// POLICY: name``, and CHECK lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser

from pimc.diagnostics import PimcError
from pimc.ir.context import parse_module
from pimc.passes.base import PassContext
from pimc.passes.pipeline import PassManager, parse_pipeline
from pimc.passes.registry import PassRegistry
from pimc.policies import DEFAULT
from pimc.targets import load_target


def run_passes(text: str, pipeline: str, overrides: Sequence[str] = (), policy: str = DEFAULT) -> str:
    """The module after a textual pipeline, in custom form; an error as ``error: message``."""
    try:
        module = parse_module(text)
        registry = PassRegistry()
        context = PassContext(machine=load_target("hpim", overrides), policy=registry.policy(policy))
        PassManager(parse_pipeline(pipeline, registry, context.policy)).run(module, context)
    except PimcError as error:
        return f"error: {error}\n"
    return str(module)


def check_file(path: Path) -> str | None:
    """Run a test file; None if it passes, else the output that did not match."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^// RUN: (.*)$", text, re.MULTILINE)
    assert found, f"{path} has no RUN line"
    overrides = re.findall(r"^// SET: (.*)$", text, re.MULTILINE)
    policy = re.search(r"^// POLICY: (.*)$", text, re.MULTILINE)
    output = run_passes(text, found[1].strip(), overrides, policy[1].strip() if policy else DEFAULT)
    options = Options(match_filename=str(path))
    parser = Parser.from_opts(options)
    return None if Matcher(options, FInput("output", output), parser).run() == 0 else output
