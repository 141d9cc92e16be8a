"""Cases of every instruction, written by pimc.runtime_sim.generate_dispatch from the ISA tables."""

# ruff: noqa: C901, PLR0912, PLR0915, PLR1714
# fmt: off
from __future__ import annotations

import numpy as np

from pimc.runtime_sim.engine.commands import (
    command_act,
    command_mac,
    command_pre,
    command_rd,
    command_rdres,
    command_ref,
    command_wr,
    command_wrgb,
)
from pimc.runtime_sim.engine.control_commands import (
    command_add,
    command_addr,
    command_endl,
    command_halt,
    command_loop,
    command_nop,
    command_set,
    command_sig,
    command_wait,
)
from pimc.runtime_sim.engine.describe import (
    describe_accumulators,
    describe_binary,
    describe_pimld,
    describe_pimmv,
    describe_reduction,
    describe_select,
    describe_strided,
    describe_tmm,
    describe_trans,
    describe_unary,
    describe_vredp,
    describe_vrope,
    describe_vwsum,
)
from pimc.runtime_sim.engine.jit import jit
from pimc.runtime_sim.engine.semantics_matrix import (
    pimld,
    pimmv_a,
    pimmv_aw,
    pimmv_c,
    pimmv_cw,
    tld_f,
    tmm_kn,
    tmm_nk,
    tmmc_kn,
    tmmc_nk,
    trans,
    twb,
    twb_f,
    vredp,
    vredpb,
    vrope,
    vwsum,
)
from pimc.runtime_sim.engine.semantics_scalar import (
    branch_beq,
    branch_bge,
    branch_blt,
    branch_bne,
    scalar_add,
    scalar_addi,
    scalar_and,
    scalar_andi,
    scalar_divu,
    scalar_lui,
    scalar_max,
    scalar_min,
    scalar_mul,
    scalar_or,
    scalar_ori,
    scalar_remu,
    scalar_sll,
    scalar_slli,
    scalar_slt,
    scalar_sltu,
    scalar_sra,
    scalar_srai,
    scalar_srl,
    scalar_srli,
    scalar_sub,
    scalar_xor,
)
from pimc.runtime_sim.engine.semantics_vector import (
    vabs,
    vadd,
    vadds,
    vatan,
    vceil,
    vcos,
    vcvt,
    vdiv,
    vdivs,
    veq,
    veqs,
    verf,
    vexp,
    vexpm1,
    vexps,
    vfill,
    vfloor,
    vgelu,
    vgelut,
    vges,
    vgts,
    vle,
    vles,
    vlog,
    vlog1p,
    vlt,
    vlts,
    vmax,
    vmaxs,
    vmin,
    vmins,
    vmod,
    vmov,
    vmul,
    vmuls,
    vneg,
    vpow,
    vrecip,
    vrelu,
    vrem,
    vrmax,
    vrmin,
    vround,
    vrprod,
    vrsqrt,
    vrsum,
    vrsumsq,
    vsigmoid,
    vsign,
    vsilu,
    vsin,
    vsqrt,
    vsub,
    vsubs,
    vtanh,
)
from pimc.runtime_sim.engine.semantics_words import (
    argmax16,
    argmax32,
    float_to_int,
    int_add,
    int_and,
    int_div,
    int_eq,
    int_le,
    int_lt,
    int_max,
    int_min,
    int_mod,
    int_mul,
    int_or,
    int_rem,
    int_sll,
    int_sra,
    int_sub,
    int_to_float,
    int_xor,
    select16,
    select32,
    strided16,
    strided32,
)
from pimc.runtime_sim.engine.state import FloatArray, Record

CLASS_SCALAR = 0
CLASS_BRANCH = 1
CLASS_DIVIDE = 2
CLASS_LW = 3
CLASS_SW = 4
CLASS_CID = 5
CLASS_CFG = 6
CLASS_NOP = 7
CLASS_HALT = 8
CLASS_WAIT = 9
CLASS_SIGH = 10
CLASS_HSET = 11
CLASS_VECTOR_BINARY = 12
CLASS_VECTOR_SCALAR = 13
CLASS_VECTOR_FILL = 14
CLASS_VECTOR_UNARY = 15
CLASS_VECTOR_REDUCE = 16
CLASS_MATRIX = 17
CLASS_HRD = 18
CLASS_HWR = 19
CLASS_HRDB = 20
CLASS_MESSAGE = 21


@jit
def scalar_result(op: int, a: int, b: int) -> int:
    """Result of a scalar operation, not wrapped."""
    if op == 9:
        return scalar_add(a, b)
    if op == 10:
        return scalar_sub(a, b)
    if op == 11:
        return scalar_mul(a, b)
    if op == 12:
        return scalar_and(a, b)
    if op == 13:
        return scalar_or(a, b)
    if op == 14:
        return scalar_xor(a, b)
    if op == 15:
        return scalar_sll(a, b)
    if op == 16:
        return scalar_srl(a, b)
    if op == 17:
        return scalar_sra(a, b)
    if op == 18:
        return scalar_slt(a, b)
    if op == 19:
        return scalar_sltu(a, b)
    if op == 20:
        return scalar_min(a, b)
    if op == 21:
        return scalar_max(a, b)
    if op == 22:
        return scalar_divu(a, b)
    if op == 23:
        return scalar_remu(a, b)
    if op == 24:
        return scalar_addi(a, b)
    if op == 25:
        return scalar_ori(a, b)
    if op == 26:
        return scalar_andi(a, b)
    if op == 27:
        return scalar_slli(a, b)
    if op == 28:
        return scalar_srli(a, b)
    if op == 29:
        return scalar_srai(a, b)
    if op == 30:
        return scalar_lui(a, b)
    return 0


@jit
def branch_taken(op: int, a: int, b: int) -> bool:
    """Whether a branch is taken."""
    if op == 2:
        return branch_beq(a, b)
    if op == 3:
        return branch_bne(a, b)
    if op == 4:
        return branch_blt(a, b)
    if op == 5:
        return branch_bge(a, b)
    return False


@jit
def vector_binary(op: int, x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Elementwise operations on two vectors."""
    if op == 35 or op == 36 or op == 193 or op == 194:
        vadd(x, y, out, n)
    if op == 37 or op == 38 or op == 195 or op == 196:
        vsub(x, y, out, n)
    if op == 39 or op == 40 or op == 197 or op == 198:
        vmul(x, y, out, n)
    if op == 41 or op == 42 or op == 199 or op == 200:
        vdiv(x, y, out, n)
    if op == 43 or op == 44 or op == 201 or op == 202:
        vmax(x, y, out, n)
    if op == 45 or op == 46 or op == 203 or op == 204:
        vmin(x, y, out, n)
    if op == 47 or op == 48 or op == 205 or op == 206:
        veq(x, y, out, n)
    if op == 49 or op == 50 or op == 207 or op == 208:
        vlt(x, y, out, n)
    if op == 51 or op == 52 or op == 209 or op == 210:
        vle(x, y, out, n)
    if op == 53 or op == 54 or op == 211 or op == 212:
        vpow(x, y, out, n)
    if op == 55 or op == 56 or op == 213 or op == 214:
        vrem(x, y, out, n)
    if op == 57 or op == 58 or op == 215 or op == 216:
        vmod(x, y, out, n)


@jit
def vector_scalar(op: int, x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Elementwise operations on a vector and a scalar."""
    if op == 59 or op == 60 or op == 217 or op == 218:
        vadds(x, s, out, n)
    if op == 61 or op == 62 or op == 219 or op == 220:
        vsubs(x, s, out, n)
    if op == 63 or op == 64 or op == 221 or op == 222:
        vmuls(x, s, out, n)
    if op == 65 or op == 66 or op == 223 or op == 224:
        vdivs(x, s, out, n)
    if op == 67 or op == 68 or op == 225 or op == 226:
        vmaxs(x, s, out, n)
    if op == 69 or op == 70 or op == 227 or op == 228:
        vmins(x, s, out, n)
    if op == 71 or op == 72 or op == 229 or op == 230:
        vexps(x, s, out, n)
    if op == 73 or op == 74 or op == 231 or op == 232:
        vfill(x, s, out, n)
    if op == 75 or op == 76 or op == 233 or op == 234:
        veqs(x, s, out, n)
    if op == 77 or op == 78 or op == 235 or op == 236:
        vlts(x, s, out, n)
    if op == 79 or op == 80 or op == 237 or op == 238:
        vles(x, s, out, n)
    if op == 81 or op == 82 or op == 239 or op == 240:
        vgts(x, s, out, n)
    if op == 83 or op == 84 or op == 241 or op == 242:
        vges(x, s, out, n)


@jit
def vector_unary(op: int, x: FloatArray, out: FloatArray, n: int) -> None:
    """Elementwise operations on one vector."""
    if op == 85 or op == 86 or op == 243 or op == 244:
        vmov(x, out, n)
    if op == 87 or op == 88 or op == 245 or op == 246:
        vneg(x, out, n)
    if op == 89 or op == 90 or op == 247 or op == 248:
        vabs(x, out, n)
    if op == 91 or op == 92 or op == 249 or op == 250:
        vrelu(x, out, n)
    if op == 93 or op == 94 or op == 251 or op == 252:
        vexp(x, out, n)
    if op == 95 or op == 96 or op == 253 or op == 254:
        vsqrt(x, out, n)
    if op == 97 or op == 98 or op == 255 or op == 256:
        vrsqrt(x, out, n)
    if op == 99 or op == 100 or op == 257 or op == 258:
        vrecip(x, out, n)
    if op == 101 or op == 102 or op == 259 or op == 260:
        vtanh(x, out, n)
    if op == 103 or op == 104 or op == 261 or op == 262:
        vsigmoid(x, out, n)
    if op == 105 or op == 106 or op == 263 or op == 264:
        vsilu(x, out, n)
    if op == 107 or op == 108 or op == 265 or op == 266:
        vgelu(x, out, n)
    if op == 109 or op == 110 or op == 267 or op == 268:
        vgelut(x, out, n)
    if op == 111 or op == 112 or op == 269 or op == 270:
        verf(x, out, n)
    if op == 113 or op == 114 or op == 271 or op == 272:
        vlog(x, out, n)
    if op == 115 or op == 116 or op == 273 or op == 274:
        vcvt(x, out, n)
    if op == 117 or op == 118 or op == 275 or op == 276:
        vfloor(x, out, n)
    if op == 119 or op == 120 or op == 277 or op == 278:
        vceil(x, out, n)
    if op == 121 or op == 122 or op == 279 or op == 280:
        vround(x, out, n)
    if op == 123 or op == 124 or op == 281 or op == 282:
        vsign(x, out, n)
    if op == 125 or op == 126 or op == 283 or op == 284:
        vsin(x, out, n)
    if op == 127 or op == 128 or op == 285 or op == 286:
        vcos(x, out, n)
    if op == 129 or op == 130 or op == 287 or op == 288:
        vatan(x, out, n)
    if op == 131 or op == 132 or op == 289 or op == 290:
        vexpm1(x, out, n)
    if op == 133 or op == 134 or op == 291 or op == 292:
        vlog1p(x, out, n)


@jit
def vector_reduce(op: int, x: FloatArray, n: int, lanes: int, partial: FloatArray) -> np.float32:
    """Reductions."""
    if op == 135 or op == 136 or op == 293 or op == 294:
        return vrsum(x, n, lanes, partial)
    if op == 137 or op == 138 or op == 295 or op == 296:
        return vrmax(x, n, lanes, partial)
    if op == 139 or op == 140 or op == 297 or op == 298:
        return vrsumsq(x, n, lanes, partial)
    if op == 141 or op == 142 or op == 299 or op == 300:
        return vrmin(x, n, lanes, partial)
    if op == 143 or op == 144 or op == 301 or op == 302:
        return vrprod(x, n, lanes, partial)
    return np.float32(0.0)


@jit
def describe_matrix(m: Record, c: int, core: Record, s: Record, op: int) -> None:
    """Ranges and work of the other instructions."""
    if op == 145 or op == 303:
        describe_vredp(m, c, core, s, False)
    if op == 146 or op == 304:
        describe_vredp(m, c, core, s, True)
    if op == 147 or op == 305:
        describe_vrope(m, c, core, s)
    if op == 148:
        describe_vwsum(m, c, core, s)
    if op == 149 or op == 306:
        describe_select(m, c, s, 2)
    if op == 150 or op == 307:
        describe_select(m, c, s, 4)
    if op == 151:
        describe_strided(m, c, core, s, 2)
    if op == 152:
        describe_strided(m, c, core, s, 4)
    if op == 153 or op == 308:
        describe_reduction(m, c, s, 2)
    if op == 154 or op == 309:
        describe_reduction(m, c, s, 4)
    if op == 155 or op == 156 or op == 310 or op == 311:
        describe_unary(m, c, s, 4, 4)
    if 157 <= op <= 169 or 312 <= op <= 324:
        describe_binary(m, c, s, 4, 4)
    if 170 <= op <= 172 or 325 <= op <= 327:
        describe_binary(m, c, s, 4, 2)
    if op == 173:
        describe_pimld(m, c, core, s)
    if op == 174 or op == 175:
        describe_pimmv(m, c, core, s, False)
    if op == 176 or op == 177:
        describe_pimmv(m, c, core, s, True)
    if op == 178 or op == 180:
        describe_tmm(m, c, core, s, True)
    if op == 179 or op == 181:
        describe_tmm(m, c, core, s, False)
    if op == 182:
        describe_accumulators(m, c, core, s, 2, False)
    if op == 183:
        describe_accumulators(m, c, core, s, 4, False)
    if op == 184:
        describe_accumulators(m, c, core, s, 4, True)
    if op == 188:
        describe_trans(m, c, core, s)


@jit
def execute_matrix(m: Record, c: int, s: Record, op: int) -> None:
    """Data of the other instructions."""
    if op == 145 or op == 303:
        vredp(m, c, s)
    if op == 146 or op == 304:
        vredpb(m, c, s)
    if op == 147 or op == 305:
        vrope(m, c, s)
    if op == 148:
        vwsum(m, c, s)
    if op == 149 or op == 306:
        select16(m, c, s)
    if op == 150 or op == 307:
        select32(m, c, s)
    if op == 151:
        strided16(m, c, s)
    if op == 152:
        strided32(m, c, s)
    if op == 153 or op == 308:
        argmax16(m, c, s)
    if op == 154 or op == 309:
        argmax32(m, c, s)
    if op == 155 or op == 310:
        int_to_float(m, c, s)
    if op == 156 or op == 311:
        float_to_int(m, c, s)
    if op == 157 or op == 312:
        int_add(m, c, s)
    if op == 158 or op == 313:
        int_sub(m, c, s)
    if op == 159 or op == 314:
        int_mul(m, c, s)
    if op == 160 or op == 315:
        int_div(m, c, s)
    if op == 161 or op == 316:
        int_max(m, c, s)
    if op == 162 or op == 317:
        int_min(m, c, s)
    if op == 163 or op == 318:
        int_rem(m, c, s)
    if op == 164 or op == 319:
        int_mod(m, c, s)
    if op == 165 or op == 320:
        int_and(m, c, s)
    if op == 166 or op == 321:
        int_or(m, c, s)
    if op == 167 or op == 322:
        int_xor(m, c, s)
    if op == 168 or op == 323:
        int_sll(m, c, s)
    if op == 169 or op == 324:
        int_sra(m, c, s)
    if op == 170 or op == 325:
        int_eq(m, c, s)
    if op == 171 or op == 326:
        int_lt(m, c, s)
    if op == 172 or op == 327:
        int_le(m, c, s)
    if op == 173:
        pimld(m, c, s)
    if op == 174:
        pimmv_a(m, c, s)
    if op == 175:
        pimmv_c(m, c, s)
    if op == 176:
        pimmv_aw(m, c, s)
    if op == 177:
        pimmv_cw(m, c, s)
    if op == 178:
        tmm_nk(m, c, s)
    if op == 179:
        tmm_kn(m, c, s)
    if op == 180:
        tmmc_nk(m, c, s)
    if op == 181:
        tmmc_kn(m, c, s)
    if op == 182:
        twb(m, c, s)
    if op == 183:
        twb_f(m, c, s)
    if op == 184:
        tld_f(m, c, s)
    if op == 188:
        trans(m, c, s)


@jit
def run_command(m: Record, p: int, h: Record, at: int, op: int, now: int) -> int:
    """Run the controller command at machine address ``at``; returns when the next may start."""
    if op == 0:
        return command_nop(m, p, h, at, now)
    if op == 1:
        return command_halt(m, p, h, at, now)
    if op == 2:
        return command_set(m, p, h, at, now)
    if op == 3:
        return command_add(m, p, h, at, now)
    if op == 4:
        return command_loop(m, p, h, at, now)
    if op == 5:
        return command_endl(m, p, h, at, now)
    if op == 6:
        return command_wait(m, p, h, at, now)
    if op == 7:
        return command_sig(m, p, h, at, now)
    if op == 8:
        return command_addr(m, p, h, at, now)
    if op == 9:
        return command_wrgb(m, p, h, at, now)
    if op == 10:
        return command_act(m, p, h, at, now)
    if op == 11:
        return command_mac(m, p, h, at, now)
    if op == 12:
        return command_pre(m, p, h, at, now)
    if op == 13:
        return command_rdres(m, p, h, at, now)
    if op == 14:
        return command_rd(m, p, h, at, now)
    if op == 15:
        return command_wr(m, p, h, at, now)
    if op == 16:
        return command_ref(m, p, h, at, now)
    return now
