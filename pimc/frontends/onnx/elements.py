"""Element types: ONNX's numbers, numpy's and the IR's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from xdsl.dialects.builtin import (
    BFloat16Type,
    Float16Type,
    Float32Type,
    Float64Type,
    IntegerType,
    Signedness,
)
from xdsl.ir import Attribute

from pimc.diagnostics import InputError
from pimc.frontends.unsupported import UnsupportedError

Array: TypeAlias = npt.NDArray[Any]
"""A tensor's values: the element type is known only when the model is."""

Element: TypeAlias = BFloat16Type | Float16Type | Float32Type | Float64Type | IntegerType


def _unsigned(width: int) -> IntegerType:
    return IntegerType(width, Signedness.UNSIGNED)


_ELEMENTS: Final[Mapping[int, Element]] = MappingProxyType(
    {
        TensorProto.FLOAT: Float32Type(),
        TensorProto.DOUBLE: Float64Type(),
        TensorProto.FLOAT16: Float16Type(),
        TensorProto.BFLOAT16: BFloat16Type(),
        TensorProto.BOOL: IntegerType(1),
        TensorProto.INT8: IntegerType(8),
        TensorProto.INT16: IntegerType(16),
        TensorProto.INT32: IntegerType(32),
        TensorProto.INT64: IntegerType(64),
        TensorProto.UINT8: _unsigned(8),
        TensorProto.UINT16: _unsigned(16),
        TensorProto.UINT32: _unsigned(32),
        TensorProto.UINT64: _unsigned(64),
    }
)


NARROW: Final[Mapping[int, type[np.generic]]] = MappingProxyType(
    {
        TensorProto.INT4: np.int8,
        TensorProto.UINT4: np.uint8,
        TensorProto.INT2: np.int8,
        TensorProto.UINT2: np.uint8,
        TensorProto.FLOAT8E4M3FN: np.float32,
        TensorProto.FLOAT8E4M3FNUZ: np.float32,
        TensorProto.FLOAT8E5M2: np.float32,
        TensorProto.FLOAT8E5M2FNUZ: np.float32,
        TensorProto.FLOAT4E2M1: np.float32,
    }
)
"""Types of stored weights that exist only quantised -> a type that holds their values."""


def element_of(number: int) -> Element:
    """The IR's element type of an ONNX ``TensorProto.DataType``; UnsupportedError where there is none."""
    if number in _ELEMENTS:
        return _ELEMENTS[number]
    names = {value: name for name, value in TensorProto.DataType.items()}
    raise UnsupportedError(
        f"element type {names.get(number, str(number)).lower()}", "float16, float32 and 8 to 64 bit integers"
    )


def element_of_array(array: Array) -> Element:
    """The IR's element type of a numpy array (bfloat16 has the type of the ml_dtypes package)."""
    return element_of(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def onnx_type_of(element: Attribute) -> int:
    """The ONNX data type of an element type of the IR."""
    return next(number for number, known in _ELEMENTS.items() if known == element)


def held(array: Array) -> Array:
    """``array`` as the interpreter holds values: floats as float32 (float64 stays)."""
    kind = array.dtype.kind
    return array if kind in "iub" or array.dtype == np.float64 else array.astype(np.float32)


def array_of(tensor: TensorProto, where: str | None = None) -> Array:
    """The values of a tensor; UnsupportedError for element types without an equivalent here, InputError for values
    that are not in the model or do not fill the shape.
    """
    element_of(tensor.data_type)
    if tensor.data_location == TensorProto.EXTERNAL:  # `onnx` would look for it in the working directory
        raise InputError(
            f"tensor {tensor.name!r} is in an external file, and the model has no folder",
            hint="give the path of the model's file",
            where=where,
        )
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        shape = "x".join(map(str, tensor.dims))
        raise InputError(f"the values of tensor {tensor.name!r} do not fill its shape {shape}", where=where) from error
    return array
