"""The command line's grammar: every command and option, and nothing that takes time to import."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from typing import NoReturn

from pimc import policies
from pimc.diagnostics import UsageError

_DESCRIPTION = "Compile transformer models for processing-in-memory hardware and run them on its simulator."
_EPILOG = "`pimc COMMAND --help` explains a command. Exit codes: 0 done, 1 bad input, 2 wrong use, 3 a bug in pimc."


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are :class:`UsageError` with a hint, not a usage page and an exit."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # argparse's own long signature

    def error(self, message: str) -> NoReturn:
        """Report ``message`` as a usage error of this (sub)command."""
        raise UsageError(message, hint=f"see `{self.prog} --help`")

    def options_and_arguments(self) -> list[argparse.Action]:
        """What this parser takes and shows in its help."""
        return [action for action in self._actions if action.help != argparse.SUPPRESS]

    def option_strings(self) -> list[str]:
        """All options that this parser knows, such as ``--target``."""
        return [text for action in self._actions for text in action.option_strings]


def chunk(text: str) -> int | str:
    """An argument that is a whole number of at least 1, or ``auto``."""
    return text if text == "auto" else positive(text)


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return value


def whole(text: str) -> int:
    """An argument that is a whole number of at least 0."""
    return 0 if text.strip() == "0" else positive(text)


def seconds(text: str) -> float:
    """An argument that is a time in seconds, above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a time in seconds above 0")
    return value


def key_value(text: str) -> str:
    """An argument of the form ``KEY=VALUE``, checked and unchanged."""
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form KEY=VALUE")
    return text


def _add_target(parser: Parser, *, default: str | None = "hpim") -> None:
    group = parser.add_argument_group("target")
    choice = group.add_mutually_exclusive_group()
    meaning = f"default: {default}" if default else "default: what the binary was compiled for"
    choice.add_argument("--target", metavar="NAME", default=default, help=f"a bundled target ({meaning})")
    choice.add_argument("--target-file", metavar="FILE", help="a target description of your own (TOML)")
    group.add_argument(
        "--set", metavar="KEY=VALUE", type=key_value, action="append", default=[], dest="overrides",
        help="override one key of the target, such as hbm.timing.nFAW=20 (may be repeated)",
    )  # fmt: skip


def _add_passes(parser: Parser) -> None:
    group = parser.add_argument_group("passes")
    group.add_argument(
        "--plugin", metavar="FILE_OR_MODULE", action="append", default=[], dest="plugins",
        help="a Python file or module with passes of your own (may be repeated)",
    )  # fmt: skip
    group.add_argument(
        "--print-ir-after", metavar="PASS", action="append", default=[],
        help="print the IR to stderr after this pass (may be repeated)",
    )  # fmt: skip
    group.add_argument("--print-ir-after-all", action="store_true", help="print the IR to stderr after every pass")
    group.add_argument("--time-passes", action="store_true", help="print a table of the time a pass to stderr")
    group.add_argument("--verify-each", action="store_true", help="verify the IR after every pass")


def _add_limits(parser: Parser, what: str) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument("--max-cycles", metavar="N", type=positive, help=f"stop after N simulated cycles{what}")
    group.add_argument("--timeout", metavar="SECONDS", type=seconds, help=f"stop after so much wall time{what}")
    group.add_argument(
        "--strict-numerics", action="store_true",
        help="fail if a result leaves the range of fp16 though its operands are finite (otherwise a warning)",
    )  # fmt: skip


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")


def _compile(parser: Parser) -> None:
    parser.add_argument(
        "source", metavar="SRC",
        help="a Hugging Face model folder, a .gguf, .onnx or .pt2 file, IR in an .mlir file, or package.module:function"
        " or file.py:function, which returns a PyTorch module and example inputs",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="OUT.pimx", help="the binary to write")
    _add_target(parser)
    parser.add_argument("--max-seq", metavar="N", type=positive, help="longest sequence, prompt included")
    parser.add_argument(
        "--prefill-chunk", metavar="N", type=chunk, help="prompt tokens processed at a time; auto: as many as fit"
    )
    parser.add_argument(
        "--shapes-only", action="store_true",
        help="a binary without weights, for `pimc run --timing-only`; of a model folder, config.json is enough",
    )  # fmt: skip
    group = parser.add_argument_group("shapes and values of inputs (ONNX models, encoders)")
    group.add_argument(
        "--shape", metavar="NAME=1,128", type=key_value, action="append", default=[], dest="shapes",
        help="the shape of an input that the model leaves open (may be repeated)",
    )  # fmt: skip
    group.add_argument(
        "--bind", metavar="NAME=VALUES", type=key_value, action="append", default=[],
        help="make an input a constant: numbers (2,3 or [[1,2],[3,4]]) or a .npy file (may be repeated)",
    )  # fmt: skip
    group = parser.add_argument_group("IR")
    group.add_argument(
        "--dump-ir", metavar="DIR",
        help="write one numbered .mlir file per pass into this folder, and the weights as model.safetensors;"
        " `pimc compile` takes each",
    )  # fmt: skip
    group.add_argument("--no-dump-weights", action="store_true", help="leave the weights out of --dump-ir")
    group.add_argument(
        "--weights", metavar="FILE", help="weights of an .mlir file (default: the .safetensors file beside it)"
    )
    _add_policy(parser)
    parser.add_argument(
        "-p", "--pipeline", metavar="PIPELINE",
        help="the whole pipeline, or edits of the default one with '...': '...,place,my-pass,...' inserts,"
        " '...,tile{share=40},...' sets an option, '...,annotate,partition,...' drops what lies between",
    )  # fmt: skip
    _add_passes(parser)
    parser.add_argument(
        "--timings", action="store_true", help="print a table of the whole wall time, stage by stage, to stderr"
    )
    parser.add_argument(
        "--explain", metavar="OP",
        help="say why this operation (a name or part of a location) landed where it did; writes nothing",
    )  # fmt: skip
    _add_json(parser)


def _add_policy(parser: Parser) -> None:
    parser.add_argument(
        "--policy", metavar="NAME",
        help="on which units operations run, and the options of passes that go with it; one of"
        f" {', '.join(policies.names())} (default: {policies.DEFAULT}), or one of a plug-in",
    )  # fmt: skip


def _add_sampling(parser: Parser) -> None:
    group = parser.add_argument_group("choice of tokens (without any of these: the likeliest one each time)")
    group.add_argument("--temperature", metavar="T", type=float, help="divide logits by T (0: the likeliest token)")
    group.add_argument("--top-k", metavar="K", type=positive, help="draw from the K likeliest tokens")
    group.add_argument(
        "--top-p", metavar="P", type=float, help="draw from the likeliest tokens of probability P in all"
    )
    group.add_argument("--seed", metavar="N", type=whole, help="the same seed gives the same tokens (default: 0)")


def _generate(parser: Parser) -> None:
    parser.add_argument("program", metavar="OUT.pimx", help="a compiled language model")
    parser.add_argument(
        "--prompt", metavar="TEXT", action="append", default=[], dest="prompts",
        help="what to continue or to answer (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--prompts-file", metavar="FILE", help="a prompt a line; - for stdin")
    parser.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=64, help="(default: 64)")
    _add_sampling(parser)
    _add_limits(parser, " in all")
    _add_target(parser, default=None)
    _add_json(parser)


def _chat(parser: Parser) -> None:
    parser.add_argument("program", metavar="OUT.pimx", help="a compiled language model with a chat template")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=256, help="of a turn (default: 256)")
    _add_sampling(parser)
    _add_limits(parser, " in a turn")
    _add_target(parser, default=None)


def _run(parser: Parser) -> None:
    parser.add_argument("program", metavar="OUT.pimx", help="a compiled program")
    parser.add_argument("--entry", metavar="NAME", help="entry point (may be left out if there is only one)")
    parser.add_argument("--inputs", metavar="IN.npz", help="arrays by input name")
    parser.add_argument(
        "--input", metavar="NAME=VALUE", type=key_value, action="append", default=[],
        help="one input: numbers (5 or 2,3 or [[1,2],[3,4]]) or @file.npy (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--outputs", metavar="OUT.npz", help="where to write the arrays by output name")
    parser.add_argument(
        "--timing-only", action="store_true",
        help="simulate the time without the data; inputs that are not given are zeros",
    )  # fmt: skip
    parser.add_argument(
        "--assume-cache", metavar="N", type=whole,
        help="take the first N positions of the KV cache for filled (with zeros)",
    )  # fmt: skip
    parser.add_argument(
        "--no-checks", action="store_true", help="look for neither races nor reads of what nothing has written"
    )
    _add_limits(parser, "")
    _add_target(parser, default=None)
    _add_json(parser)


def _info(parser: Parser) -> None:
    parser.add_argument("program", metavar="OUT.pimx", help="a compiled program")
    _add_json(parser)


def _disasm(parser: Parser) -> None:
    parser.add_argument("program", metavar="OUT.pimx", help="a compiled program")
    parser.add_argument("--stream", metavar="NAME", help="one stream only, such as decode/core/0")
    parser.add_argument("-o", "--output", metavar="FILE", help="write here instead of to stdout")


def _asm(parser: Parser) -> None:
    parser.add_argument("source", metavar="FILE", help="assembly text, as `pimc disasm` prints it")
    parser.add_argument("-o", "--output", metavar="OUT.pimx", required=True, help="the binary to write")


def _opt(parser: Parser) -> None:
    parser.add_argument("source", metavar="FILE", nargs="?", help="an IR dump (.mlir), or - for stdin")
    parser.add_argument("-p", "--pipeline", metavar="PIPELINE", help="passes, such as 'annotate,place'")
    parser.add_argument("-o", "--output", metavar="FILE", help="write here instead of to stdout")
    parser.add_argument("--list-passes", action="store_true", help="list the passes with their options, and stop")
    parser.add_argument("--list-policies", action="store_true", help="list the policies, and stop")
    _add_policy(parser)
    _add_target(parser)
    _add_passes(parser)


def _targets(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a target to show, or a TOML file")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", type=key_value, action="append", default=[], dest="overrides",
        help="override one key (may be repeated)",
    )  # fmt: skip
    _add_json(parser)


def _demo(parser: Parser) -> None:
    parser.add_argument("--prompt", metavar="TEXT", default="What is the capital of France?", help="ask something else")
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=64, help="(default: 64)")
    parser.add_argument("--no-cache", action="store_true", help="compile again even if a compiled binary is cached")
    parser.add_argument("--no-install", action="store_true", help="fetch nothing; fail if something is missing")


def _doctor(parser: Parser) -> None:
    _add_json(parser)


def _completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to complete in")


_Command = tuple[str, Callable[[Parser], None]]

COMMANDS: dict[str, _Command] = {
    "compile": ("compile a model to a binary", _compile),
    "generate": ("generate text with a compiled language model", _generate),
    "chat": ("talk with a compiled language model", _chat),
    "run": ("execute a binary on arrays", _run),
    "info": ("say what is in a binary: entry points, inputs, outputs, sizes", _info),
    "disasm": ("binary to assembly text", _disasm),
    "asm": ("assembly text to binary", _asm),
    "opt": ("run passes on an IR dump", _opt),
    "targets": ("list the targets, or show one", _targets),
    "doctor": ("check that everything pimc needs is there", _doctor),
    "completion": ("print a script by which a shell completes commands and options", _completion),
    "demo": ("fetch, compile and ask a small language model", _demo),
}


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and the parsers of the commands by name."""
    from pimc import __version__

    top = Parser(prog="pimc", description=_DESCRIPTION, epilog=_EPILOG)
    top.add_argument("--version", action="version", version=f"pimc {__version__}")
    top.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    parsers: dict[str, Parser] = {}
    for name, (summary, declare) in COMMANDS.items():
        parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        declare(parser)
        parsers[name] = parser
    return top, parsers


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UsageError: anything wrong with it, with a hint (a close option, the help of the command).
        SystemExit: after ``--help`` or ``--version``.
    """
    command = next((word for word in argv if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean `pimc {near[0]}`?" if near else f"commands: {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command '{command}'", hint=hint)
    top, parsers = build_parser()
    arguments, unknown = top.parse_known_args(argv)
    if arguments.command is None and not unknown:
        raise UsageError("no command given", hint=f"commands: {', '.join(COMMANDS)}; see `pimc --help`")
    if unknown:
        parser = parsers.get(arguments.command, top)
        near = difflib.get_close_matches(unknown[0].partition("=")[0], parser.option_strings(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"see `{parser.prog} --help`"
        kind = "option" if unknown[0].startswith("-") else "argument"
        raise UsageError(f"unknown {kind} '{unknown[0]}'", hint=hint)
    return arguments
