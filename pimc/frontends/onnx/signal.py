"""Fourier transforms as products with matrices that are known at import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.onnx.limits import bounded, unrollable
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

Complex = npt.NDArray[np.complex128]


def _transformed(
    context: NodeContext, x: SSAValue, function: Callable[[Complex], Complex], *, real: bool = False
) -> SSAValue:
    """A linear function of complex vectors on x ``[..., L, 1 or 2]`` (the last dimension: real, imaginary part).

    ``function`` maps rows; it is applied to the unit vectors, which gives the matrices.  With ``real`` the result
    has no imaginary part.
    """
    terms = Expressions(context)
    length, kinds = context.shape_of(x)[-2:]
    rank = len(context.shape_of(x))
    bounded([length, length])
    units = np.eye(length).astype(np.complex128)
    results: list[SSAValue] = []
    for part, take in enumerate((np.real,) if real else (np.real, np.imag)):
        total: SSAValue | None = None
        for kind in range(kinds):
            matrix = take(function(units * (1, 1j)[kind])).T.astype(np.float32)
            weight = context.param(context.derived(f"fourier{part}{kind}", matrix))
            product = context.emit(nn.LinearOp(terms.at(x, rank - 1, kind), weight))
            total = product if total is None else terms.add(total, product)
        if total is None:
            raise UnsupportedError("a signal without values")
        results.append(total)
    return terms.stack(results, rank - 1)


def _fourier(size: int, *, inverse: bool, onesided: bool) -> Callable[[Complex], Complex]:
    if inverse:
        if onesided:
            return lambda x: np.fft.irfft(x, size).astype(np.complex128)
        return lambda x: np.fft.ifft(x, size)
    kept = size // 2 + 1 if onesided else size
    return lambda x: np.fft.fft(x, size)[..., :kept]


def _dft(context: NodeContext) -> Converted:
    """Discrete Fourier transform along one axis, zero padded or cut to the given length."""
    x = context.value(0)
    shape = context.shape_of(x)
    inverse, onesided = bool(context.attr_int("inverse", 0)), bool(context.attr_int("onesided", 0))
    given = [index for index in (1, 2) if context.has(index)]
    values = dict(zip(given, context.require_all(given, "the axis or the length"), strict=True))
    axis = int(values[2].reshape(-1)[0]) if 2 in values else context.attr_int("axis", 1 if context.opset < 20 else -2)
    axis %= len(shape)
    if 1 in values:
        size = int(values[1].reshape(-1)[0])
    else:
        size = 2 * (shape[axis] - 1) if inverse and onesided else shape[axis]
    order = [*(i for i in range(len(shape) - 1) if i != axis), axis, len(shape) - 1]
    moved = context.transpose(x, order)
    function = _fourier(size, inverse=inverse, onesided=onesided)
    result = _transformed(context, moved, function, real=inverse and onesided)
    return context.transpose(result, [order.index(i) for i in range(len(shape))])


def _stft(context: NodeContext) -> Converted:
    """Fourier transforms of windowed frames: signal ``[B, L, 1 or 2]`` -> ``[B, frames, frequencies, 2]``."""
    terms = Expressions(context)
    given = [index for index in (1, 3) if context.has(index)]
    values = dict(zip(given, context.require_all(given, "the step or the length of a frame"), strict=True))
    step = int(values[1].reshape(-1)[0])
    signal = context.value(0)
    batch, length, kinds = context.shape_of(signal)
    window = context.value(2) if context.has(2) else None
    size = context.shape_of(window)[0] if window is not None else length
    if 3 in values:
        size = int(values[3].reshape(-1)[0])
    count = unrollable((length - size) // step + 1, "a transform")
    frames = terms.stack([terms.part(signal, 1, i * step, i * step + size) for i in range(count)], 1)
    if window is not None:
        frames = terms.mul(frames, context.reshape(window, (size, 1)))
    frames = context.reshape(frames, (batch, count, size, kinds))
    onesided = bool(context.attr_int("onesided", 1)) and kinds == 1
    return _transformed(context, frames, _fourier(size, inverse=False, onesided=onesided))


TABLE: Final[Mapping[str, Converter]] = {"DFT": _dft, "STFT": _stft}
"""Converters by operator."""
