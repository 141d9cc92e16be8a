"""Element-wise, normalisation and other VCU work on tensors in local memory."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import Operation, SSAValue

from pimc.backends.lower.context import F32_BYTES, LoweringContext
from pimc.backends.lower.values import Strip, Tensor
from pimc.ir import nn

#: VCU instruction of each element-wise operator of two tensors.
BINARY: Mapping[type[Operation], str] = {
    nn.AddOp: "vadd_h",
    nn.SubOp: "vsub_h",
    nn.MulOp: "vmul_h",
    nn.DivOp: "vdiv_h",
    nn.MaximumOp: "vmax_h",
    nn.MinimumOp: "vmin_h",
}
#: VCU instruction of each element-wise operator of one tensor.
UNARY: Mapping[type[Operation], str] = {
    nn.SiluOp: "vsilu_h",
    nn.ReluOp: "vrelu_h",
    nn.TanhOp: "vtanh_h",
    nn.SigmoidOp: "vsigmoid_h",
    nn.ExpOp: "vexp_h",
    nn.ErfOp: "verf_h",
    nn.SqrtOp: "vsqrt_h",
    nn.RsqrtOp: "vrsqrt_h",
    nn.NegOp: "vneg_h",
    nn.AbsOp: "vabs_h",
    nn.LogOp: "vlog_h",
    nn.RecipOp: "vrecip_h",
}


def lower_binary(ctx: LoweringContext, op: Operation) -> None:
    """``dst = a op b``; a vector operand is repeated for every row."""
    a, b = ctx.tensor(op.operands[0]), ctx.tensor(op.operands[1])
    instruction = BINARY[type(op)]
    shape = a if a.rows >= b.rows else b
    result = ctx.like("vector", shape)
    for x, y, to in zip(a.strips, b.strips, result.strips, strict=True):
        if x.width != y.width:
            raise ctx.unsupported(f"operands of {x.width} and {y.width} features do not match")
        if x.rows == y.rows and x.contiguous and y.contiguous and to.contiguous:
            ctx.core.emit(instruction, ctx.address(to), ctx.address(x), ctx.address(y), ctx.core.const(to.elements))
            continue
        with ctx.each_row(to.rows) as row:
            left = ctx.address(x, row if x.rows == to.rows else None)
            right = ctx.address(y, row if y.rows == to.rows else None)
            ctx.core.emit(instruction, ctx.address(to, row), left, right, ctx.core.const(to.width))
    ctx.set(op.results[0], result)


def lower_unary(ctx: LoweringContext, op: Operation) -> None:
    """``dst = f(a)``."""
    apply_unary(ctx, op, UNARY[type(op)])


def lower_gelu(ctx: LoweringContext, op: nn.GeluOp) -> None:
    """GELU by erf, or by its tanh approximation."""
    apply_unary(ctx, op, "vgelut_h" if op.approximate.data == "tanh" else "vgelu_h")


def apply_unary(ctx: LoweringContext, op: Operation, instruction: str) -> None:
    """One VCU instruction for each strip, or for each row where the strip has gaps."""
    source = ctx.tensor(op.operands[0])
    result = ctx.like("vector", source)
    for x, to in zip(source.strips, result.strips, strict=True):
        if x.contiguous and to.contiguous:
            ctx.core.emit(instruction, ctx.address(to), ctx.address(x), ctx.core.const(to.elements))
            continue
        with ctx.each_row(to.rows) as row:
            ctx.core.emit(instruction, ctx.address(to, row), ctx.address(x, row), ctx.core.const(to.width))
    ctx.set(op.results[0], result)


def copy(ctx: LoweringContext, source: Strip, to: Strip) -> None:
    """Copy a strip."""
    core = ctx.core
    if source.contiguous and to.contiguous:
        core.vmov_h(ctx.address(to), ctx.address(source), core.const(to.elements))
        return
    with ctx.each_row(to.rows) as row:
        core.vmov_h(ctx.address(to, row), ctx.address(source, row), core.const(to.width))


def lower_rms_norm(ctx: LoweringContext, op: nn.RmsNormOp) -> None:
    """x / sqrt(mean(x^2) + eps) * w, the statistics of all rows in f32 side by side."""
    core = ctx.core
    x, w = ctx.tensor(op.x).whole, ctx.tensor(op.weight).whole
    result = ctx.strip("rms_norm", x.rows, x.width)
    scale = _inverse_deviation(ctx, x, op.eps.value.data)
    with ctx.each_row(x.rows) as row:
        core.vmuls_h(ctx.address(result, row), ctx.address(x, row), _scalar_of(ctx, scale, row), core.const(x.width))
        core.vmul_h(ctx.address(result, row), ctx.address(result, row), ctx.address(w), core.const(x.width))
    ctx.set(op.results[0], Tensor((result,)))


def lower_layer_norm(ctx: LoweringContext, op: nn.LayerNormOp) -> None:
    """(x - mean) / sqrt(var + eps) * w + b."""
    core = ctx.core
    x = ctx.tensor(op.x).whole
    centred = ctx.strip("layer_norm.centred", x.rows, x.width)
    mean = ctx.alloc("layer_norm.mean", x.rows * F32_BYTES)
    with ctx.each_row(x.rows) as row:
        core.vrsum_h(_scalar_of(ctx, mean.value, row), ctx.address(x, row), core.const(x.width))
    count = core.const(x.rows)
    at = core.address(mean.value)
    core.vmuls_f(at, at, ctx.f32(1.0 / x.width), count)
    with ctx.each_row(x.rows) as row:
        core.vsubs_h(
            ctx.address(centred, row),
            ctx.address(x, row),
            _scalar_of(ctx, mean.value, row),
            core.const(x.width),
        )
    scale = _inverse_deviation(ctx, centred, op.eps.value.data)
    result = ctx.strip("layer_norm", x.rows, x.width)
    w, b = ctx.tensor(op.weight).whole, ctx.tensor(op.bias).whole if op.bias is not None else None
    with ctx.each_row(x.rows) as row:
        to = ctx.address(result, row)
        width = core.const(x.width)
        core.vmuls_h(to, ctx.address(centred, row), _scalar_of(ctx, scale, row), width)
        core.vmul_h(to, to, ctx.address(w), width)
        if b is not None:
            core.vadd_h(to, to, ctx.address(b), width)
    ctx.set(op.results[0], Tensor((result,)))


def _inverse_deviation(ctx: LoweringContext, x: Strip, eps: float) -> SSAValue:
    """A buffer of f32: 1 / sqrt(mean(x^2) + eps) of each row."""
    core = ctx.core
    buffer = ctx.alloc("norm.scale", x.rows * F32_BYTES).value
    with ctx.each_row(x.rows) as row:
        core.vrsumsq_h(_scalar_of(ctx, buffer, row), ctx.address(x, row), core.const(x.width))
    at, count = core.address(buffer), core.const(x.rows)
    core.vmuls_f(at, at, ctx.f32(1.0 / x.width), count)
    core.vadds_f(at, at, ctx.f32(eps), count)
    core.vrsqrt_f(at, at, count)
    return buffer


def _scalar_of(ctx: LoweringContext, buffer: SSAValue, row: SSAValue | None) -> SSAValue:
    """The address of a row's f32 in a buffer of one f32 a row."""
    base = ctx.core.address(buffer)
    return base if row is None else ctx.core.add(base, ctx.core.slli(row, imm=2))


def lower_rope(ctx: LoweringContext, op: nn.RopeOp) -> None:
    """Rotary embedding of every head, row by row (each token has its row of the table)."""
    core = ctx.core
    x, table = ctx.tensor(op.x).whole, ctx.tensor(op.table).whole
    result = ctx.strip("rope", x.rows, x.width)
    head_dim = core.const(op.head_dim.value.data)
    with ctx.each_row(x.rows) as row:
        core.vrope(
            ctx.address(result, row), ctx.address(x, row), ctx.address(table, row), core.const(x.width),
            head_dim=head_dim,
        )  # fmt: skip
    ctx.set(op.results[0], Tensor((result,)))


def lower_select_token(ctx: LoweringContext, op: nn.SelectTokenOp) -> None:
    """Row ``length - 1`` of a replicated tensor."""
    core = ctx.core
    x = ctx.tensor(op.x).whole
    result = ctx.strip("last", 1, x.width)
    row = core.addi(ctx.scalar(op.length), imm=-1)
    core.vmov_h(ctx.address(result), ctx.address(x, row), core.const(x.width))
    ctx.set(op.results[0], Tensor((result,)))
