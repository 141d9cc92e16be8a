"""``pimc compile``: a model in, a binary out."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pimc.cli import console
from pimc.diagnostics import InputError, UsageError
from pimc.files import regular_file

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.passes import ModulePass

    from pimc.driver.compile import Plan
    from pimc.passes.observers import Observer, TimePasses


class _Progress:
    """Says which pass has run, where a person watches."""

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Nothing to say yet."""

    def after(self, index: int, pass_: ModulePass, module: ModuleOp, seconds: float) -> None:
        """One line a pass."""
        console.say(f"  {pass_.name}: {seconds:.2f} s")


def execute(arguments: argparse.Namespace) -> None:
    """Compile and write the binary, or explain where an operation lands."""
    if not arguments.output and not arguments.explain:
        raise UsageError("no output given", hint="name the binary to write with -o OUT.pimx")
    source: str = arguments.source
    if Path(source).exists() and not Path(source).is_dir():
        regular_file(source)
    elif ":" not in source and not Path(source).exists():
        raise InputError("no such file or folder", where=source)
    if arguments.output and not Path(arguments.output).resolve().parent.is_dir():
        raise InputError("no such folder to write to", where=str(Path(arguments.output).parent))

    from pimc.driver.compile import Options, plan
    from pimc.driver.inputs import shapes_of, values_of

    options = Options(
        target=arguments.target_file or arguments.target,
        overrides=tuple(arguments.overrides),
        max_seq=arguments.max_seq,
        prefill_chunk=arguments.prefill_chunk,
        pipeline=arguments.pipeline,
        plugins=tuple(arguments.plugins),
        verify_each=arguments.verify_each,
        shapes=shapes_of(arguments.shapes),
        bind=values_of(arguments.bind),
    )
    if arguments.explain:
        _explain(arguments, source, plan(options, until_placed=True))
    else:
        _compile(arguments, source, plan(options))


def _compile(arguments: argparse.Namespace, source: str, planned: Plan) -> None:
    from pimc.driver.compile import compile_model
    from pimc.driver.report import program_lines, program_report
    from pimc.runtime import Executable

    observers, timer = observers_of(arguments)
    if console.watched():
        console.say(f"importing {source}")
        observers.append(_Progress())
    began = time.perf_counter()
    compiled = compile_model(source, planned=planned, observers=observers)
    Executable(compiled.program, compiled.target).save(arguments.output)
    if arguments.time_passes:
        console.say(timer.table().rstrip())
    report = program_report(compiled.program)
    seconds = time.perf_counter() - began
    if arguments.json:
        console.write_json({**report, "output": arguments.output, "wall_s": round(seconds, 3)})
        return
    size = Path(arguments.output).stat().st_size / 1e6
    console.say(f"wrote {arguments.output}: {size:.1f} MB for {planned.target.name}, in {seconds:.1f} s")
    for line in program_lines(compiled.program):
        console.say(f"  {line}")


def _explain(arguments: argparse.Namespace, source: str, planned: Plan) -> None:
    import dataclasses

    from pimc.driver.compile import run_plan
    from pimc.driver.explain import explain

    observers, timer = observers_of(arguments)
    model, context = run_plan(source, planned, observers)
    found = explain(model.module, arguments.explain, context.decisions)
    if arguments.time_passes:
        console.say(timer.table().rstrip())
    if arguments.json:
        console.write_json({"operations": [dataclasses.asdict(item) for item in found]})
        return
    for item in found:
        console.write(f"{item}\n")


def observers_of(arguments: argparse.Namespace) -> tuple[list[Observer], TimePasses]:
    """The observers that the options of compile and opt ask for, and the timer among them."""
    from pimc.passes.observers import DumpIr, PrintIr, TimePasses

    timer = TimePasses()
    observers: list[Observer] = [timer]
    if getattr(arguments, "dump_ir", None):
        observers.append(DumpIr(Path(arguments.dump_ir)))
    if arguments.print_ir_after_all or arguments.print_ir_after:
        printer = PrintIr(sys.stderr, after_passes=arguments.print_ir_after, all_=arguments.print_ir_after_all)
        observers.append(printer)
    return observers, timer
