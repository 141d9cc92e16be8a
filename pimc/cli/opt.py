"""``pimc opt``: run passes on an IR dump."""

from __future__ import annotations

import argparse

from pimc.cli import console
from pimc.cli.compile import observers_of


def execute(arguments: argparse.Namespace) -> None:
    """Parse, verify, run the passes, print."""
    from pimc.atomic import write_text
    from pimc.diagnostics import UsageError
    from pimc.files import read_text
    from pimc.ir.context import parse_source, print_module, verify_module
    from pimc.limits import TEXT_FILE_BYTES
    from pimc.passes.base import PassContext
    from pimc.passes.pipeline import PassManager, parse_pipeline
    from pimc.passes.registry import PassRegistry
    from pimc.targets import load_target

    if arguments.output and arguments.output.endswith(".pimx"):
        raise UsageError(
            "opt writes IR, not a binary", hint=f"pimc compile {arguments.source} -o {arguments.output} makes one of it"
        )
    registry = PassRegistry(arguments.plugins)
    if arguments.list_passes:
        for info in registry.describe():
            options = "".join(f"\n    {option}" for option in info.options)
            console.write(f"{info.name}: {info.summary}{options}\n")
        return
    if arguments.list_policies:
        for policy in registry.policies():
            console.write(f"{policy.name}: {policy.summary}\n")
        return
    if arguments.source is None:
        raise UsageError("no IR file given", hint="name a .mlir file, or - for stdin")
    target = arguments.target_file or arguments.target
    overrides = tuple(arguments.overrides)
    policy = registry.policy(arguments.policy) if arguments.policy else registry.policy()
    context = PassContext(
        machine=load_target(target, overrides), target_name=str(target), overrides=overrides, policy=policy
    )
    passes = parse_pipeline(arguments.pipeline or "", registry, policy)
    name = "<stdin>" if arguments.source == "-" else arguments.source
    text = read_text(arguments.source, TEXT_FILE_BYTES, stdin=True)
    module, context.source = parse_source(text, context.ir, name)
    observers, timer = observers_of(arguments)
    PassManager(passes, verify_each=arguments.verify_each).run(module, context, observers)
    verify_module(module)
    if arguments.time_passes:
        console.say(timer.table().rstrip())
    if arguments.output:
        write_text(arguments.output, print_module(module))
    else:
        console.write(print_module(module))
