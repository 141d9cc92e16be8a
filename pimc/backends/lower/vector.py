"""Element-wise, normalisation and other VCU work on tensors in local memory."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import Operation, SSAValue

from pimc.backends.lower.context import LoweringContext, shape_of
from pimc.backends.lower.rows import inverse_deviation, mean_of_rows, softmax_rows
from pimc.backends.lower.values import Scalar, Strip, Tensor
from pimc.ir import nn
from pimc.ir.pim.conv import ConvOp
from pimc.ir.pim.ops import GemmOp

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
        _on_strips(ctx, instruction, to, x, y)
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
            _on_strips(ctx, "vmul_h", to, to, factor)
    ctx.set(op.results[0], result)


def lower_softmax(ctx: LoweringContext, op: nn.SoftmaxOp) -> None:
    """Softmax over the last dimension of a replicated tensor."""
    x = ctx.tensor(op.x).whole
    if op.axis.value.data not in (-1, len(shape_of(op.x)) - 1):
        raise ctx.unsupported("softmax is over the last dimension only")
    result = ctx.strip("softmax", x.rows, x.width)
    softmax_rows(ctx, x.rows, ctx.place(result), ctx.place(x), n=x.width, most=x.rows)
    ctx.set(op.results[0], Tensor((result,)))


def lower_unary(ctx: LoweringContext, op: Operation) -> None:
    """``dst = f(a)``."""
    apply_unary(ctx, op, UNARY[type(op)])


def lower_gelu(ctx: LoweringContext, op: nn.GeluOp) -> None:
    """GELU by erf, or by its tanh approximation."""
    apply_unary(ctx, op, "vgelut_h" if op.approximate.data == "tanh" else "vgelu_h")


def apply_unary(ctx: LoweringContext, op: Operation, instruction: str) -> None:
    """One vector instruction on the operand; in its place where nobody else uses it."""
    source = ctx.tensor(op.operands[0])
    result = source if _is_last_use(op) else ctx.like("vector", source)
    ctx.set(op.results[0], map_rows(ctx, instruction, source, result))


def _is_last_use(op: Operation) -> bool:
    """Whether an operation is the one user of what has a buffer of its own: the result of a product."""
    (value,) = op.operands
    owner = value.owner
    return isinstance(owner, ConvOp | GemmOp) and value.has_one_use() and owner.parent is op.parent


def map_rows(
    ctx: LoweringContext, instruction: str, source: Tensor, result: Tensor, scalar: SSAValue | None = None
) -> Tensor:
    """``result = f(source)``, an instruction for each strip.

    ``scalar``: the address of an f32 that the instruction takes as its other operand.
    """
    for x, to in zip(source.strips, result.strips, strict=True):
        _on_strips(ctx, instruction, to, x, scalar=scalar)
    return result


def _on_strips(
    ctx: LoweringContext, instruction: str, to: Strip, *sources: Strip, scalar: SSAValue | None = None
) -> None:
    """An instruction on all rows of ``to``; a source of a single row is repeated, and so is the f32 ``scalar``."""
    core = ctx.core
    numbers = [] if scalar is None else [scalar]
    if all(strip.contiguous and strip.rows == to.rows for strip in (to, *sources)):
        core.emit(instruction, *(ctx.address(strip) for strip in (to, *sources)), *numbers, to.elements)
        return
    repeated = [(number, 0) for number in numbers]
    places = [ctx.place(strip, of=to.rows) for strip in (to, *sources)]
    core.on_rows(instruction, to.rows, *places, *repeated, n=to.width)


def copy(ctx: LoweringContext, source: Strip, to: Strip) -> None:
    """Copy a strip."""
    map_rows(ctx, "vmov_h", Tensor((source,)), Tensor((to,)))


def lower_rms_norm(ctx: LoweringContext, op: nn.RmsNormOp) -> None:
    """x / sqrt(mean(x^2) + eps) * w, the statistics of all rows in f32 side by side."""
    x, w = ctx.tensor(op.x).whole, ctx.tensor(op.weight).whole
    result = ctx.strip("rms_norm", x.rows, x.width)
    scale = inverse_deviation(ctx, x.rows, ctx.place(x), n=x.width, eps=op.eps.value.data)
    ctx.core.on_rows("vmuls_h", x.rows, ctx.place(result), ctx.place(x), scale, n=x.width)
    _on_strips(ctx, "vmul_h", result, result, w)
    ctx.set(op.results[0], Tensor((result,)))


def lower_layer_norm(ctx: LoweringContext, op: nn.LayerNormOp) -> None:
    """(x - mean) / sqrt(var + eps) * w + b."""
    core, x = ctx.core, ctx.tensor(op.x).whole
    centred = ctx.strip("layer_norm", x.rows, x.width)
    mean = mean_of_rows(ctx, x.rows, ctx.place(x), n=x.width)
    core.on_rows("vsubs_h", x.rows, ctx.place(centred), ctx.place(x), mean, n=x.width)
    scale = inverse_deviation(ctx, x.rows, ctx.place(centred), n=x.width, eps=op.eps.value.data)
    core.on_rows("vmuls_h", x.rows, ctx.place(centred), ctx.place(centred), scale, n=x.width)
    _on_strips(ctx, "vmul_h", centred, centred, ctx.tensor(op.weight).whole)
    if op.bias is not None:
        _on_strips(ctx, "vadd_h", centred, centred, ctx.tensor(op.bias).whole)
    ctx.set(op.results[0], Tensor((centred,)))


def lower_rope(ctx: LoweringContext, op: nn.RopeOp) -> None:
    """Rotary embedding of every head of all rows (each token has its row of the table)."""
    core = ctx.core
    x, table = ctx.tensor(op.x).whole, ctx.tensor(op.table).whole
    result = ctx.strip("rope", x.rows, x.width)
    ctx.set(op.results[0], Tensor((result,)))
    turned, head_bytes = op.turned, op.head_dim.value.data * 2
    angles = ctx.place(table, of=x.rows)
    if turned * 2 == head_bytes:
        core.on_rows("vrope", x.rows, ctx.place(result), ctx.place(x), angles, n=x.width, head_dim=turned)
        return
    copy(ctx, x, result)  # only the first features of a head are turned: head by head
    with core.loop(0, x.width * 2, head_bytes) as head:
        (to, to_step), (source, step) = (
            (core.add(at, head), pitch) for at, pitch in ((ctx.address(strip), strip.pitch) for strip in (result, x))
        )
        core.on_rows("vrope", x.rows, (to, to_step), (source, step), angles, n=turned, head_dim=turned)


def lower_select_token(ctx: LoweringContext, op: nn.SelectTokenOp) -> None:
    """Row ``length - 1`` of a replicated tensor."""
    core = ctx.core
    x = ctx.tensor(op.x).whole
    result = ctx.strip("last", 1, x.width)
    row = core.addi(ctx.scalar(op.length), imm=-1)
    core.vmov_h(ctx.address(result), ctx.address(x, row), core.const(x.width))
    ctx.set(op.results[0], Tensor((result,)))
