"""The entry point of the command line: parse, dispatch, and turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence

from pimc.cli import console, parser
from pimc.diagnostics import InputError, InternalError, PimcError
from pimc.files import reason

_INTERRUPTED = 130  # what shells report after SIGINT


def main(argv: Sequence[str] | None = None, began: float | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 bad input, 2 wrong use, 3 a bug in pimc.

    ``began``: when its time began, of ``perf_counter`` (now unless given).
    """
    began = time.perf_counter() if began is None else began
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    console.prepare()
    try:
        arguments = parser.parse(words)
        arguments.began = began
        _dispatch(arguments)
    except PimcError as error:
        return _fail(error, debug)
    except KeyboardInterrupt:
        console.say("pimc: interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout (head, less) has left; that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:  # argparse, after --help or --version
        return stop.code if isinstance(stop.code, int) else 0
    except OSError as error:
        return _fail(InputError(reason(error), where=error.filename and str(error.filename)), debug)
    except MemoryError:
        return _fail(InputError("out of memory", hint="a smaller --max-seq needs less"), debug)
    except Exception as error:  # noqa: BLE001  # the last line of defence: a bug, reported as one
        summary = f"{type(error).__name__}: {error}"
        hint = "this is a bug in pimc; please report it with the output of the same command with --debug"
        return _fail(InternalError(f"internal error: {summary}", hint=hint), debug)
    return 0


def _dispatch(arguments: argparse.Namespace) -> None:
    module = importlib.import_module(f"pimc.cli.{arguments.command}")
    module.execute(arguments)


def _fail(error: PimcError, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    console.report(error)
    return error.exit_code


def entry_point() -> None:
    """The ``pimc`` console script."""
    from pimc.timings import process_start

    code = main(began=process_start())
    gc.freeze()  # the end of the process frees everything: Python need not look through a model's objects first
    sys.exit(code)
