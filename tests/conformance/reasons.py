"""Short names for why a case is refused: the table counts by these."""

from __future__ import annotations

import re
from typing import Final

from pimc.diagnostics import PimcError, UnsupportedModelError

_CLASSES: Final[tuple[tuple[str, str], ...]] = (
    (r"element type (float8\w*|float4\w*|u?int[24]\b)", "element type below 8 bits or float8"),
    (r"element type string|strings?\b", "strings"),
    (r"an? (input|output) that is an? (sequence|optional|sparse)", "sequences and optionals"),
    (r"^(Sequence|Optional|SplitToSequence|ConcatFromSequence)", "sequences and optionals"),
    (r"^(If|Loop|Scan)\b", "control flow that depends on data"),
    (r"\brandom|Random|Bernoulli|Multinomial", "random numbers"),
    (r"is not known at compile time", "a shape that depends on data"),
    (r"without a fixed shape|dynamic shape", "a shape that depends on data"),
    (r"exceeds|does not fit|activation memory|too large", "does not fit the local memory of a core"),
    (r"integer|Integers|i32|i64", "integer arithmetic on the hardware"),
    (r"no conversion", "no conversion of the operator"),
    (r"no lowering|cannot be lowered|lower", "no lowering of the operator"),
)


def reason_of(error: PimcError) -> str:
    """The class of a refusal."""
    items = error.items if isinstance(error, UnsupportedModelError) else ()
    for text in [f"{item.operator}: {item.reason}" for item in items] or [error.message]:
        for pattern, name in _CLASSES:
            if re.search(pattern, text):
                return name
    return "a form of the operator that is not supported"
