"""Constants of several elements: they are stored in the memory image like weights, under a name made of their bytes.

Scalars are operands of instructions.  The layout pass puts the others into the module attribute ``pim.constants``
(name -> dense value), so that they outlive the operations and travel with a dump.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, DictionaryAttr, IntegerType, ModuleOp, i1

from pimc.diagnostics import InputError

#: The largest finite fp16.
LARGEST_HALF: Final = 65504.0
CONSTANTS = "pim.constants"
#: Elements up to which a constant is an operand of instructions, not stored.
SCALAR = 1
_PREFIX = "constant."


def is_stored(value: DenseIntOrFPElementsAttr) -> bool:
    """Whether a constant is stored in the image."""
    return elements(value) > SCALAR


def elements(value: DenseIntOrFPElementsAttr) -> int:
    """Elements of a constant."""
    count = 1
    for size in value.get_shape():
        count *= size
    return count


def element_halves(value: DenseIntOrFPElementsAttr) -> int:
    """16-bit words an element takes: one for fp16 and booleans (0 and 1 in fp16), two for integers."""
    element = value.get_element_type()
    return 2 if isinstance(element, IntegerType) and element != i1 else 1


def constant_name(value: DenseIntOrFPElementsAttr) -> str:
    """The name of a stored constant: the same for the same bytes."""
    digest = hashlib.sha256(halves(value).tobytes()).hexdigest()
    return f"{_PREFIX}{element_halves(value) * 16}.{digest[:24]}"


def halves(value: DenseIntOrFPElementsAttr) -> NDArray[np.uint16]:
    """The constant as 16-bit words, flat: bits of fp16 numbers, or low and high half of 32-bit integers.

    Raises InputError for a type that the hardware does not hold (``raise`` narrows those).
    """
    element = value.get_element_type()
    numbers: NDArray[np.generic] = np.array(value.get_values())
    if isinstance(element, IntegerType):
        if element == i1:
            return numbers.astype(np.bool_).astype(np.float16).view(np.uint16)
        if element.width.data == 32:
            return numbers.astype(np.int64).astype("<i4").view("<u2").astype(np.uint16)
    elif str(element) == "f16":
        return numbers.astype(np.float16).view(np.uint16)
    raise InputError(f"a constant of {element} cannot be stored", hint="run raise, which narrows element types")


def stored_constants(module: ModuleOp) -> Mapping[str, NDArray[np.uint16]]:
    """The words of the constants of a module that the layout pass has seen, by name."""
    attribute = module.attributes.get(CONSTANTS)
    data = attribute.data if isinstance(attribute, DictionaryAttr) else {}
    return {name: halves(value) for name, value in data.items() if isinstance(value, DenseIntOrFPElementsAttr)}
