"""Element-wise, normalisation and other VCU work on tensors in local memory."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import Operation, SSAValue

from pimc.backends.lower.context import F32_BYTES, LoweringContext, shape_of
from pimc.backends.lower.values import Scalar, Strip, Tensor
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
#: VCU instruction of each element-wise operator of a tensor and a constant on its right.
WITH_SCALAR: Mapping[type[Operation], str] = {
    nn.AddOp: "vadds_h",
    nn.SubOp: "vsubs_h",
    nn.MulOp: "vmuls_h",
    nn.DivOp: "vdivs_h",
    nn.MaximumOp: "vmaxs_h",
    nn.MinimumOp: "vmins_h",
}
#: What x ^ c is, for the constants c that models use: steps, each a unary instruction or "x" for a product with x.
POWERS: Mapping[float, tuple[str, ...]] = {
    1.0: (),
    2.0: ("x",),
    3.0: ("x", "x"),
    4.0: ("x", "x", "x"),
    0.5: ("vsqrt_h",),
    -0.5: ("vrsqrt_h",),
    -1.0: ("vrecip_h",),
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
    nn.FloorOp: "vfloor_h",
    nn.CeilOp: "vceil_h",
    nn.RoundOp: "vround_h",
    nn.SignOp: "vsign_h",
    nn.SinOp: "vsin_h",
    nn.CosOp: "vcos_h",
    nn.AtanOp: "vatan_h",
}


def lower_constant(ctx: LoweringContext, op: nn.ConstantOp) -> None:
    """A constant of one element is an operand of vector instructions."""
    values = op.value.get_values()
    if len(values) != 1:
        raise ctx.unsupported(f"a constant of {len(values)} elements; only single numbers are supported")
    ctx.set(op.result, Scalar(float(values[0])))


def lower_binary(ctx: LoweringContext, op: Operation) -> None:
    """``dst = a op b``; a vector operand is repeated for every row, a constant is a scalar operand."""
    left, right = (ctx.values.get(operand) for operand in op.operands)
    if isinstance(right, Scalar):
        _with_scalar(ctx, op, ctx.tensor(op.operands[0]), right.value)
        return
    if isinstance(left, Scalar):
        _scalar_left(ctx, op, left.value, ctx.tensor(op.operands[1]))
        return
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


def _with_scalar(ctx: LoweringContext, op: Operation, x: Tensor, value: float) -> None:
    """``dst = x op value``."""
    scalar = ctx.f32(value)
    ctx.set(op.results[0], map_rows(ctx, WITH_SCALAR[type(op)], x, ctx.like("vector", x), scalar))


def _scalar_left(ctx: LoweringContext, op: Operation, value: float, x: Tensor) -> None:
    """``dst = value op x``: commutative operators turned round, a difference negated, a quotient by the reciprocal."""
    if isinstance(op, nn.SubOp):
        _with_scalar(ctx, op, x, value)
        result = ctx.tensor(op.results[0])
        map_rows(ctx, "vneg_h", result, result)
    elif isinstance(op, nn.DivOp):
        result = map_rows(ctx, "vrecip_h", x, ctx.like("vector", x))
        ctx.set(op.results[0], result if value == 1 else map_rows(ctx, "vmuls_h", result, result, ctx.f32(value)))
    else:
        _with_scalar(ctx, op, x, value)


def lower_pow(ctx: LoweringContext, op: nn.PowOp) -> None:
    """A tensor to a constant power, as products, roots and reciprocals."""
    exponent = ctx.values.get(op.operands[1])
    steps = POWERS.get(exponent.value) if isinstance(exponent, Scalar) else None
    if steps is None:
        known = ", ".join(f"{power:g}" for power in sorted(POWERS))
        raise ctx.unsupported(f"a power must be one of the constants {known}")
    x = ctx.tensor(op.operands[0])
    result = map_rows(ctx, "vmov_h", x, ctx.like("vector", x))
    for step in steps:
        if step != "x":
            map_rows(ctx, step, result, result)
            continue
        for factor, to in zip(x.strips, result.strips, strict=True):
            with ctx.each_row(to.rows) as row:
                at = ctx.address(to, row)
                ctx.core.vmul_h(at, at, ctx.address(factor, row), ctx.core.const(to.width))
    ctx.set(op.results[0], result)


def lower_softmax(ctx: LoweringContext, op: nn.SoftmaxOp) -> None:
    """Softmax over the last dimension of a replicated tensor, row by row."""
    core, x = ctx.core, ctx.tensor(op.x).whole
    if op.axis.value.data not in (-1, len(shape_of(op.x)) - 1):
        raise ctx.unsupported("softmax is over the last dimension only")
    result = ctx.strip("softmax", x.rows, x.width)
    top, total = (core.address(ctx.alloc(f"softmax.{name}", F32_BYTES).value) for name in ("max", "sum"))
    with ctx.each_row(x.rows) as row:
        to, source, width = ctx.address(result, row), ctx.address(x, row), core.const(x.width)
        core.vrmax_h(top, source, width)
        core.vexps_h(to, source, top, width)
        core.vrsum_h(total, to, width)
        core.vdivs_h(to, to, total, width)
    ctx.set(op.results[0], Tensor((result,)))


def lower_unary(ctx: LoweringContext, op: Operation) -> None:
    """``dst = f(a)``."""
    apply_unary(ctx, op, UNARY[type(op)])


def lower_gelu(ctx: LoweringContext, op: nn.GeluOp) -> None:
    """GELU by erf, or by its tanh approximation."""
    apply_unary(ctx, op, "vgelut_h" if op.approximate.data == "tanh" else "vgelu_h")


def apply_unary(ctx: LoweringContext, op: Operation, instruction: str) -> None:
    """One vector instruction on the operand."""
    source = ctx.tensor(op.operands[0])
    ctx.set(op.results[0], map_rows(ctx, instruction, source, ctx.like("vector", source)))


def map_rows(
    ctx: LoweringContext, instruction: str, source: Tensor, result: Tensor, scalar: SSAValue | None = None
) -> Tensor:
    """``result = f(source)``: an instruction for each strip, or for each row where a strip has gaps.

    ``scalar``: the address of an f32 that the instruction takes as its other operand.
    """
    extra = () if scalar is None else (scalar,)
    for x, to in zip(source.strips, result.strips, strict=True):
        if x.contiguous and to.contiguous:
            ctx.core.emit(instruction, ctx.address(to), ctx.address(x), *extra, ctx.core.const(to.elements))
            continue
        with ctx.each_row(to.rows) as row:
            ctx.core.emit(instruction, ctx.address(to, row), ctx.address(x, row), *extra, ctx.core.const(to.width))
    return result


def copy(ctx: LoweringContext, source: Strip, to: Strip) -> None:
    """Copy a strip."""
    map_rows(ctx, "vmov_h", Tensor((source,)), Tensor((to,)))


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
    centred = ctx.strip("layer_norm", x.rows, x.width)
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
    w, b = ctx.tensor(op.weight).whole, ctx.tensor(op.bias).whole if op.bias is not None else None
    with ctx.each_row(x.rows) as row:
        to = ctx.address(centred, row)
        width = core.const(x.width)
        core.vmuls_h(to, to, _scalar_of(ctx, scale, row), width)
        core.vmul_h(to, to, ctx.address(w), width)
        if b is not None:
            core.vadd_h(to, to, ctx.address(b), width)
    ctx.set(op.results[0], Tensor((centred,)))


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
    if op.turned != op.head_dim.value.data:
        _rope_in_part(ctx, op, x, table, result)
        return
    head_dim = core.const(op.head_dim.value.data)
    with ctx.each_row(x.rows) as row:
        core.vrope(
            ctx.address(result, row), ctx.address(x, row), ctx.address(table, row), core.const(x.width),
            head_dim=head_dim,
        )  # fmt: skip
    ctx.set(op.results[0], Tensor((result,)))


def _rope_in_part(ctx: LoweringContext, op: nn.RopeOp, x: Strip, table: Strip, result: Strip) -> None:
    """Only the first features of a head are turned: head by head, on a copy."""
    core = ctx.core
    copy(ctx, x, result)
    turned = core.const(op.turned)
    step = op.head_dim.value.data * 2
    with ctx.each_row(x.rows) as row, core.loop(core.const(0), core.const(x.width * 2), step) as at:
        to, source = core.add(ctx.address(result, row), at), core.add(ctx.address(x, row), at)
        core.vrope(to, source, ctx.address(table, row), turned, head_dim=turned)
    ctx.set(op.results[0], Tensor((result,)))


def lower_select_token(ctx: LoweringContext, op: nn.SelectTokenOp) -> None:
    """Row ``length - 1`` of a replicated tensor."""
    core = ctx.core
    x = ctx.tensor(op.x).whole
    result = ctx.strip("last", 1, x.width)
    row = core.addi(ctx.scalar(op.length), imm=-1)
    core.vmov_h(ctx.address(result), ctx.address(x, row), core.const(x.width))
    ctx.set(op.results[0], Tensor((result,)))
