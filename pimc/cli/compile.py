"""``pimc compile``: a model in, a binary out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pimc.cli import console
from pimc.diagnostics import InputError, UsageError
from pimc.files import regular_file
from pimc.timings import Timings, stage

if TYPE_CHECKING:
    from pimc.driver.compile import Compiled, Plan
    from pimc.driver.explain import Explanation
    from pimc.passes.observers import Observer, TimePasses


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
        policy=arguments.policy,
        pipeline=arguments.pipeline,
        plugins=tuple(arguments.plugins),
        verify_each=arguments.verify_each,
        shapes=shapes_of(arguments.shapes),
        bind=values_of(arguments.bind),
        weights=arguments.weights,
        shapes_only=arguments.shapes_only,
        dump_ir=Path(arguments.dump_ir) if arguments.dump_ir else None,
        dump_weights=not arguments.no_dump_weights,
    )
    with console.progress(f"compiling {source}") as show:
        # What is printed meanwhile would tear the spinner.
        quiet = arguments.print_ir_after or arguments.print_ir_after_all or arguments.time_passes
        if quiet:
            show(None)
        told = None if quiet else lambda name: show(f"{source}: {name}")
        timings = Timings(arguments.began, "Python, command line, compiler", told)
        with timings.active():
            with stage("load target and passes"):
                planned = plan(options, until_placed=bool(arguments.explain))
            done = _explain(arguments, source, planned) if arguments.explain else _compile(arguments, source, planned)
        show(None)
    if isinstance(done, list):
        _report_explanations(arguments, done, timings)
    else:
        _report(arguments, done, timings)


def _compile(arguments: argparse.Namespace, source: str, planned: Plan) -> Compiled:
    from pimc.driver.compile import compile_model
    from pimc.isa.container import write_program
    from pimc.isa.validate import check_against_target

    observers, timer = observers_of(arguments)
    with stage("link and check"):
        compiled = compile_model(source, planned=planned, observers=observers)
        check_against_target(compiled.program, compiled.target)
    with stage("write the binary"):
        write_program(arguments.output, compiled.program)
    if arguments.time_passes:
        console.say(timer.table().rstrip())
    return compiled


def _report(arguments: argparse.Namespace, compiled: Compiled, timings: Timings) -> None:
    """What has been written, and what it took."""
    from pimc.driver.report import program_lines, program_report

    with timings.stage("report"):
        report, lines = program_report(compiled.program), list(program_lines(compiled.program))
    if arguments.timings:
        console.say(timings.table().rstrip())
    stages = timings.stages()
    seconds = sum(stages.values())
    if arguments.json:
        times = {"timings_s": {name: round(value, 4) for name, value in stages.items()}} if arguments.timings else {}
        console.write_json({**report, "output": arguments.output, "wall_s": round(seconds, 3), **times})
        return
    size = Path(arguments.output).stat().st_size / 1e6
    console.say(f"wrote {arguments.output}: {size:.1f} MB for {compiled.target.name}, in {seconds:.1f} s")
    for line in lines:
        console.say(f"  {line}")


def _explain(arguments: argparse.Namespace, source: str, planned: Plan) -> list[Explanation]:
    from pimc.driver.compile import run_plan
    from pimc.driver.explain import explain

    observers, timer = observers_of(arguments)
    model, context = run_plan(source, planned, observers)
    found = explain(model.module, arguments.explain, context.decisions)
    if arguments.time_passes:
        console.say(timer.table().rstrip())
    return found


def _report_explanations(arguments: argparse.Namespace, found: list[Explanation], timings: Timings) -> None:
    import dataclasses

    if arguments.timings:
        console.say(timings.table().rstrip())
    if arguments.json:
        console.write_json({"operations": [dataclasses.asdict(item) for item in found]})
        return
    for item in found:
        console.write(f"{item}\n")


def observers_of(arguments: argparse.Namespace) -> tuple[list[Observer], TimePasses]:
    """The observers that the options of compile and opt ask for, and the timer among them."""
    from pimc.passes.observers import PrintIr, TimePasses

    timer = TimePasses()
    observers: list[Observer] = [timer]
    if arguments.print_ir_after_all or arguments.print_ir_after:
        printer = PrintIr(sys.stderr, after_passes=arguments.print_ir_after, all_=arguments.print_ir_after_all)
        observers.append(printer)
    return observers, timer
