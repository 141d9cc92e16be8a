"""``annotate``: write class, flops, bytes and arithmetic intensity on every compute operation.

``pim.class`` is one of gemm, gemv, nonlinear, layout, memory; ``pim.flops`` and ``pim.bytes`` are i64,
``pim.intensity`` (flops a byte) f32.  ``context`` is the number of cached positions that attention is
counted with (0: the whole cache).
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, ModuleOp, StringAttr, f32, i64

from pimc.ir import nn
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext

CLASS, FLOPS, BYTES, INTENSITY = "pim.class", "pim.flops", "pim.bytes", "pim.intensity"


@dataclass(frozen=True)
class AnnotatePass(Pass):
    """Write what each operation does: class, flops, bytes, intensity."""

    name = "annotate"
    produces = Stage.ANNOTATED
    context: int = 0

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        for inner in module.walk():
            if not isinstance(inner, nn.NnOp) or isinstance(inner, nn.ParamOp | nn.ConstantOp):
                continue
            cost = inner.cost(self.context or None)
            inner.attributes[CLASS] = StringAttr(inner.op_class())
            inner.attributes[FLOPS] = IntegerAttr(cost.flops, i64)
            inner.attributes[BYTES] = IntegerAttr(cost.bytes, i64)
            inner.attributes[INTENSITY] = FloatAttr(cost.intensity, f32)
