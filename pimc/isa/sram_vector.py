"""Vector instructions of the SRAM-PIM core (unit ``vcu``)."""

from __future__ import annotations

from pimc.isa.spec import Instruction
from pimc.isa.sram_fields import RD, RS1, RS2, RS3, ZERO_RS2, op, register


def _vv(funct: int, mnemonic: str, doc: str, latency: str = "vector") -> list[Instruction]:
    operands = (
        register("dst", RD, "destination address"),
        register("a", RS1, "first source address"),
        register("b", RS2, "second source address"),
        register("n", RS3, "elements"),
    )
    return [
        Instruction(f"{mnemonic}.{t}", "vcu", op(20, funct | bit), operands, latency, f"{mnemonic}_{t}", doc)
        for t, bit in (("h", 0), ("f", 32))
    ]


def _vs(funct: int, mnemonic: str, doc: str) -> list[Instruction]:
    operands = (
        register("dst", RD, "destination address"),
        register("a", RS1, "source address"),
        register("s", RS2, "address of an f32 scalar"),
        register("n", RS3, "elements"),
    )
    return [
        Instruction(f"{mnemonic}.{t}", "vcu", op(21, funct | bit), operands, "vector", f"{mnemonic}_{t}", doc)
        for t, bit in (("h", 0), ("f", 32))
    ]


def _vu(funct: int, mnemonic: str, doc: str, latency: str = "vector_special") -> list[Instruction]:
    operands = (
        register("dst", RD, "destination address"),
        register("a", RS1, "source address"),
        register("n", RS3, "elements"),
    )
    return [
        Instruction(
            f"{mnemonic}.{t}",
            "vcu",
            (*op(22, funct | bit), ZERO_RS2),
            operands,
            latency,
            f"{mnemonic}_{t}",
            doc,
        )
        for t, bit in (("h", 0), ("f", 32))
    ]


def _vr(funct: int, mnemonic: str, doc: str) -> list[Instruction]:
    operands = (
        register("dst", RD, "address of the f32 result"),
        register("a", RS1, "source address"),
        register("n", RS3, "elements"),
    )
    return [
        Instruction(
            f"{mnemonic}.{t}",
            "vcu",
            (*op(23, funct | bit), ZERO_RS2),
            operands,
            "vector_reduce",
            f"{mnemonic}_{t}",
            doc,
        )
        for t, bit in (("h", 0), ("f", 32))
    ]


VECTOR = (
    *_vv(0, "vadd", "dst[i] = a[i] + b[i]."),
    *_vv(1, "vsub", "dst[i] = a[i] - b[i]."),
    *_vv(2, "vmul", "dst[i] = a[i] * b[i]."),
    *_vv(3, "vdiv", "dst[i] = a[i] / b[i]."),
    *_vv(4, "vmax", "dst[i] = max(a[i], b[i])."),
    *_vv(5, "vmin", "dst[i] = min(a[i], b[i])."),
    *_vv(6, "veq", "dst[i] = 1 if a[i] == b[i], else 0."),
    *_vv(7, "vlt", "dst[i] = 1 if a[i] < b[i], else 0."),
    *_vv(8, "vle", "dst[i] = 1 if a[i] <= b[i], else 0."),
    *_vv(9, "vpow", "dst[i] = a[i] to the power b[i].", "vector_special"),
    *_vv(10, "vrem", "dst[i] = a[i] - b[i] * q, q the quotient rounded towards zero: the sign of a.", "vector_special"),
    *_vv(11, "vmod", "dst[i] = a[i] - b[i] * q, q the quotient rounded down: the sign of b.", "vector_special"),
    *_vs(0, "vadds", "dst[i] = a[i] + s."),
    *_vs(1, "vsubs", "dst[i] = a[i] - s."),
    *_vs(2, "vmuls", "dst[i] = a[i] * s."),
    *_vs(3, "vdivs", "dst[i] = a[i] / s."),
    *_vs(4, "vmaxs", "dst[i] = max(a[i], s)."),
    *_vs(5, "vmins", "dst[i] = min(a[i], s)."),
    *_vs(6, "vexps", "dst[i] = exp(a[i] - s), the numerator of a softmax."),
    *_vs(7, "vfill", "dst[i] = s; the source is not read (write the destination register twice)."),
    *_vs(8, "veqs", "dst[i] = 1 if a[i] == s, else 0."),
    *_vs(9, "vlts", "dst[i] = 1 if a[i] < s, else 0."),
    *_vs(10, "vles", "dst[i] = 1 if a[i] <= s, else 0."),
    *_vs(11, "vgts", "dst[i] = 1 if a[i] > s, else 0."),
    *_vs(12, "vges", "dst[i] = 1 if a[i] >= s, else 0."),
    *_vu(0, "vmov", "dst[i] = a[i].", "vector"),
    *_vu(1, "vneg", "dst[i] = -a[i].", "vector"),
    *_vu(2, "vabs", "dst[i] = |a[i]|.", "vector"),
    *_vu(3, "vrelu", "dst[i] = max(a[i], 0).", "vector"),
    *_vu(4, "vexp", "dst[i] = exp(a[i])."),
    *_vu(5, "vsqrt", "dst[i] = sqrt(a[i])."),
    *_vu(6, "vrsqrt", "dst[i] = 1 / sqrt(a[i])."),
    *_vu(7, "vrecip", "dst[i] = 1 / a[i]."),
    *_vu(8, "vtanh", "dst[i] = tanh(a[i])."),
    *_vu(9, "vsigmoid", "dst[i] = 1 / (1 + exp(-a[i]))."),
    *_vu(10, "vsilu", "dst[i] = a[i] / (1 + exp(-a[i]))."),
    *_vu(11, "vgelu", "dst[i] = a[i] * (1 + erf(a[i] / sqrt 2)) / 2."),
    *_vu(12, "vgelut", "dst[i] = GELU by its tanh approximation."),
    *_vu(13, "verf", "dst[i] = erf(a[i])."),
    *_vu(14, "vlog", "dst[i] = ln(a[i])."),
    *_vu(15, "vcvt", ".h: f32 source to f16 destination; .f: f16 source to f32 destination.", "vector"),
    *_vu(16, "vfloor", "dst[i] = a[i] rounded down to an integer.", "vector"),
    *_vu(17, "vceil", "dst[i] = a[i] rounded up to an integer.", "vector"),
    *_vu(18, "vround", "dst[i] = a[i] rounded to the nearest integer, ties to even.", "vector"),
    *_vu(19, "vsign", "dst[i] = -1, 0 or 1, the sign of a[i].", "vector"),
    *_vu(20, "vsin", "dst[i] = sin(a[i])."),
    *_vu(21, "vcos", "dst[i] = cos(a[i])."),
    *_vu(22, "vatan", "dst[i] = arctan(a[i])."),
    *_vu(23, "vexpm1", "dst[i] = exp(a[i]) - 1, accurate near 0."),
    *_vu(24, "vlog1p", "dst[i] = ln(1 + a[i]), accurate near 0."),
    *_vr(0, "vrsum", "dst = sum of a[i]."),
    *_vr(1, "vrmax", "dst = max of a[i]; -inf for no elements."),
    *_vr(2, "vrsumsq", "dst = sum of a[i]^2."),
    *_vr(3, "vrmin", "dst = min of a[i]; inf for no elements."),
    *_vr(4, "vrprod", "dst = product of a[i]; 1 for no elements."),
    Instruction(
        "vredp",
        "vcu",
        (*op(24, 0), (RS2, 0)),
        (
            register("dst", RD, "f16 destination address"),
            register("a", RS1, "f32 partial sums"),
            register("n", RS3, "results, a multiple of 16 or the last group cut short"),
        ),
        "vector",
        "vredp",
        "dst[16g + i] = round(sum over v < parts of a[16(g*parts + v) + i]): HBM-PIM results to f16.",
        ("parts",),
    ),
    Instruction(
        "vredpb",
        "vcu",
        (*op(24, 3),),
        (
            register("dst", RD, "f16 destination address"),
            register("a", RS1, "f32 partial sums"),
            register("b", RS2, "f16 bias, added in f32"),
            register("n", RS3, "results, a multiple of 16 or the last group cut short"),
        ),
        "vector",
        "vredpb",
        "dst[16g + i] = round(sum over v < parts of a[16(g*parts + v) + i] + b[16g + i]).",
        ("parts",),
    ),
    Instruction(
        "vrope",
        "vcu",
        (*op(24, 1),),
        (
            register("dst", RD, "f16 destination address"),
            register("a", RS1, "f16 source address"),
            register("b", RS2, "f16 table: head_dim cosines, then head_dim sines"),
            register("n", RS3, "elements, a multiple of head_dim"),
        ),
        "vector",
        "vrope",
        "Rotary embedding, half-split: y[i] = x[i]*cos[i] - x[i+d/2]*sin[i] for i < d/2, "
        "x[i]*cos[i] + x[i-d/2]*sin[i] above.",
        ("head_dim",),
    ),
    Instruction(
        "vwsum",
        "vcu",
        (*op(24, 2),),
        (
            register("dst", RD, "f16 destination address"),
            register("a", RS1, "f16 rows, stride_a bytes apart"),
            register("b", RS2, "f32 weights, one a row"),
            register("n", RS3, "elements a row"),
        ),
        "vector_rows",
        "vwsum",
        "dst[j] = round(sum over i < rows of b[i] * a[i][j]), rows ascending.",
        ("rows", "stride_a"),
    ),
)
