"""Short names for why a case is refused: the table counts by these.

Refused is what the compiler says it cannot do.  Any other error, whatever its class, is a failure.
"""

from __future__ import annotations

import re
from typing import Final

from pimc.diagnostics import PimcError, UnsupportedModelError

_UNSUPPORTED: Final[tuple[tuple[str, str], ...]] = (
    (r"element type (float[48]\w*|u?int[24]\b)", "element type float8, float4, int4 or int2"),
    (r"element type string|strings?\b", "strings"),
    (r"element type", "another element type"),
    (r"an? (input|output) that is an? (sequence|optional|sparse)", "sequences and optionals"),
    (r"^(Sequence|Optional|SplitToSequence|ConcatFromSequence)", "sequences and optionals"),
    (r"^(If|Loop|Scan)\b", "control flow"),
    (r"\brandom|Random|Bernoulli|Multinomial", "random numbers"),
    (r"not known at compile time", "a shape that depends on data"),
    (r"no conversion", "operator without a conversion"),
    (r"[Ii]nteger|\bu?i(8|16|32|64)\b", "integer arithmetic on the hardware"),
    (r"has no lowering", "operator without a lowering"),
)
"""Of the items of an UnsupportedModelError: what is found in ``operator: reason`` of any item, the first row first."""

_OTHER: Final[tuple[tuple[str, str], ...]] = (
    (r"torch\.export cannot", "a module that torch.export does not take"),
    (r"inputs without a fixed shape", "sequences and optionals"),
    (r"does not fit( the .* memory|: it needs rows)", "too large for the machine"),
    (r"words, the instruction memory|bytes of code", "too large for the machine"),
    (r"does not fit the hardware's fp16|beyond the range of f16", "a value beyond the range of fp16"),
    (r"does not fit the hardware's 32-bit", "a value beyond the range of 32-bit integers"),
)
"""Of the messages of other errors that say what cannot be done."""

_FORM: Final = "a form of the operator"


def refusal(error: PimcError) -> str | None:
    """The class of a refusal; None if the error is none, but a failure."""
    if isinstance(error, UnsupportedModelError):
        texts = [f"{item.operator}: {item.reason}" for item in error.items]
        return next((name for pattern, name in _UNSUPPORTED if any(re.search(pattern, text) for text in texts)), _FORM)
    return next((name for pattern, name in _OTHER if re.search(pattern, error.message)), None)


def told(error: PimcError) -> str:
    """What a refusal says of the first thing that it refuses, without its place: ``aten.foo: no conversion``."""
    if not isinstance(error, UnsupportedModelError):
        return error.message
    item = error.items[0]
    return f"{item.operator}: {item.reason}"
