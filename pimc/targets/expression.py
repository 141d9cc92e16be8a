"""Integer expressions over named figures of a target file: ``nCWL + nBL + nWTRS``, ``max(nBL, nCCDS)``."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping

from pimc.diagnostics import TargetError


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint with the known words closest to ``word``, or None."""
    close = difflib.get_close_matches(word, list(known), n=2, cutoff=0.5)
    return f"did you mean {' or '.join(repr(item) for item in close)}?" if close else None


def evaluate(text: str, figures: Mapping[str, int], where: str) -> int:
    """Value of ``text`` (``+ - * //``, ``max``, ``min``, parentheses, names with dots) over ``figures``.

    Raises :class:`TargetError` at ``where`` for a syntax error or an unknown name.
    """
    try:
        tree = ast.parse(text, mode="eval").body
        return _value(tree, figures, where)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise TargetError(
            f"{text[:80]!r} is not an expression", where=where, hint="use names, integers, + - * // max min"
        ) from None
    except ZeroDivisionError:
        raise TargetError(f"{text[:80]!r} divides by zero", where=where) from None


def _value(node: ast.expr, figures: Mapping[str, int], where: str) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return int(number)
        case ast.Name() | ast.Attribute():
            name = ast.unparse(node)
            if name not in figures:
                raise TargetError(f"unknown figure {name!r}", where=where, hint=did_you_mean(name, figures))
            return figures[name]
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _value(left, figures, where), _value(right, figures, where)
            match operator:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return a // b
        case ast.Call(func=ast.Name(id="max" | "min" as function), args=[_, *_] as arguments, keywords=[]):
            values = [_value(argument, figures, where) for argument in arguments]
            return max(values) if function == "max" else min(values)
    raise ValueError(ast.dump(node))
