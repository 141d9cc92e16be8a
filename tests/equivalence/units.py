"""What the instructions of a core do to terms (docs/isa.md, docs/numerics.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from equivalence.memory import Accessor, Cells, span
from equivalence.schedule import Machine
from equivalence.streams import CannotTellError, Effect
from equivalence.terms import CONSTANTS, UNWRITTEN, Terms, cells, constant, digest, elements, mix, symmetric, widened
from pimc.isa.spec import Instruction
from pimc.isa.sram import SRAM_ISA
from pimc.isa.sram_rows import ROWS, STRIDES, SUFFIX, is_rows_form, moving_operands

_COMMUTATIVE = frozenset(
    f"{name}.{form}" for name in ("vadd", "vmul", "vmax", "vmin", "veq", "vand", "vor", "vxor") for form in "hfi"
)
_ONE = 0x3C00  # fp16
_LANES = 16  # banks of a pseudo-channel: lanes of a result


@dataclass
class Core:
    """The memories of a core that hold terms."""

    number: int
    local: Cells
    machine: Machine
    who: Accessor
    array: Terms = field(init=False)
    pim: Terms = field(init=False)
    tensor: Terms = field(init=False)

    def __post_init__(self) -> None:
        size = self.machine
        self.array = np.full((size.array_rows, size.lanes), UNWRITTEN)
        self.pim = np.full(size.array_rows, UNWRITTEN)
        self.tensor = np.full((size.tcu_rows, size.tcu_columns), UNWRITTEN)

    def load(self, low: int, n: int, size: int = 2, stride: int = 0, rows: int = 1) -> Terms:
        """Elements of ``size`` bytes: ``n`` in each of ``rows`` rows, flat."""
        return elements(self.local.read(span(low, n * size, stride, rows), self.who), size)

    def store(self, low: int, values: Terms, size: int = 2, stride: int = 0, rows: int = 1) -> None:
        """Store computed elements."""
        n = values.size // max(rows, 1)
        self.local.write(span(low, n * size, stride, rows), cells(values, size), self.who)

    def copy(self, low: int, bits: Terms, stride: int = 0, rows: int = 1) -> None:
        """Store cells as they are."""
        self.local.write(span(low, 2 * (bits.size // max(rows, 1)), stride, rows), bits, self.who)


Operands: TypeAlias = Mapping[str, int]
_Action: TypeAlias = Callable[[Core, str, Operands], None]


def _widths(mnemonic: str) -> tuple[int, int]:
    """Bytes of source and destination elements of a vector instruction."""
    form = mnemonic.partition(".")[2]
    if mnemonic == "vcvt.h":
        return 4, 2
    if mnemonic == "vcvt.f":
        return 2, 4
    if form == "i" and mnemonic in ("veq.i", "vlt.i", "vle.i"):
        return 4, 2
    size = 2 if form == "h" else 4
    return size, size


def _binary(core: Core, name: str, o: Operands) -> None:
    source, target = _widths(name)
    a, b = core.load(o["a"], o["n"], source), core.load(o["b"], o["n"], source)
    core.store(o["dst"], symmetric(name, a, b) if name in _COMMUTATIVE else mix(name, a, b), target)


def _scalar(core: Core, name: str, o: Operands) -> None:
    if o["n"] <= 0:
        return
    source, target = _widths(name)
    scalar = core.load(o["s"], 1, 4)
    if name == "vfill.f":
        core.copy(o["dst"], np.tile(core.local.read(span(o["s"], 4), core.who), o["n"]))
    elif name == "vfill.h":
        core.store(o["dst"], np.broadcast_to(mix(name, scalar), o["n"]))
    elif name == "vexps.h":
        values = core.load(o["a"], o["n"])
        one = elements(widened(values), 4) == scalar  # exp(x - x)
        core.store(o["dst"], np.where(one, CONSTANTS[_ONE], mix(name, values, scalar)))
    else:
        core.store(o["dst"], mix(name, core.load(o["a"], o["n"], source), scalar), target)


def _unary(core: Core, name: str, o: Operands) -> None:
    source, target = _widths(name)
    if name.startswith("vmov."):
        core.copy(o["dst"], core.local.read(span(o["a"], o["n"] * source), core.who))
    elif name == "vcvt.f":
        core.copy(o["dst"], widened(core.load(o["a"], o["n"])))
    else:
        core.store(o["dst"], mix(name, core.load(o["a"], o["n"], source)), target)


def _reduction(core: Core, name: str, o: Operands) -> None:
    source, _ = _widths(name)
    if name in ("vrmax.h", "vrsum.h") and o["n"] == 1:
        core.copy(o["dst"], widened(core.load(o["a"], 1)))
    else:
        core.store(o["dst"], mix(name, digest(core.load(o["a"], o["n"], source)[None])), 4)


def _select(core: Core, name: str, o: Operands) -> None:
    size, _ = _widths(name)
    chosen, condition = core.load(o["a"], o["n"], size), core.load(o["b"], o["n"])
    core.store(o["dst"], mix(name, core.load(o["dst"], o["n"], size), chosen, condition), size)


def _strided(core: Core, name: str, o: Operands) -> None:
    size, _ = _widths(name)
    half = np.arange(size // 2)
    places = [((o[base] + np.arange(o["n"]) * o[step])[:, None] // 2 + half).reshape(-1) for base, step in
              (("a", "stride_a"), ("dst", "stride_b"))]  # fmt: skip
    core.local.write(places[1], core.local.read(places[0], core.who), core.who)


def _partial_sums(core: Core, name: str, o: Operands) -> None:
    n, parts = o["n"], o["parts"]
    if n <= 0:
        return
    groups = -(-n // _LANES)
    read = _LANES * (groups * parts - 1) + n - _LANES * (groups - 1)
    terms = np.full(groups * parts * _LANES, UNWRITTEN)
    terms[:read] = core.load(o["a"], read, 4)
    by_part = terms.reshape(groups, parts, _LANES)
    total = by_part[:, 0]
    for part in range(1, parts):
        total = mix("sum", total, by_part[:, part])
    flat = total.reshape(-1)[:n]
    if name == "vredpb":
        flat = mix("sum", flat, core.load(o["b"], n))
    core.store(o["dst"], mix("round", flat))


def _rope(core: Core, name: str, o: Operands) -> None:
    dim, n = o["head_dim"], o["n"]
    if n <= 0:
        return
    x, table = core.load(o["a"], n).reshape(-1, dim), core.load(o["b"], 2 * dim)
    half = dim // 2
    low, high = x[:, :half], x[:, half:]
    cos, sin = table[:dim], table[dim:]
    below = mix("rope low", low, cos[:half], high, sin[:half])
    above = mix("rope high", high, cos[half:], low, sin[half:])
    core.store(o["dst"], np.concatenate([below, above], axis=1).reshape(-1))


def _weighted_sum(core: Core, name: str, o: Operands) -> None:
    n, rows = o["n"], o["rows"]
    total = np.broadcast_to(mix("zero"), n)
    if rows > 0 and n > 0:
        weights = core.load(o["b"], rows, 4)
        values = core.load(o["a"], n, 2, o["stride_a"], rows).reshape(rows, n)
        for weight, row in zip(weights, values, strict=True):
            total = mix("multiply and add", total, weight, row)
        core.store(o["dst"], mix("round", total))


def _transpose(core: Core, name: str, o: Operands) -> None:
    rows, cols = o["rows"], o["cols"]
    if rows > 0 and cols > 0:
        source = core.local.read(span(o["a"], 2 * cols, o["stride_a"], rows), core.who).reshape(rows, cols)
        core.copy(o["dst"], source.T.reshape(-1), o["stride_b"], cols)


def _array_load(core: Core, name: str, o: Operands) -> None:
    n, depth, lane = o["n"], o["depth"], o["lane"]
    if n > 0 and depth > 0:
        source = core.local.read(span(o["a"], 2 * depth, o["stride_a"], n), core.who)
        core.array[o["row"] : o["row"] + n, lane : lane + depth] = source.reshape(n, depth)


def _array_product(core: Core, name: str, o: Operands) -> None:
    n, depth = o["n"], o["depth"]
    if n <= 0:
        return
    rows = core.array[o["row"] : o["row"] + n, :depth]
    form = name.partition(".")[2]
    before = np.broadcast_to(mix("zero"), n) if form.startswith("c") else core.pim[:n]
    if not rows.all() or not before.all():
        raise CannotTellError(f"{core.who.what}: the PIM array is read before it is written")
    products = mix("product", digest(core.load(o["x"], depth)[None]), digest(rows))
    core.pim[:n] = mix("accumulate", before, products)
    if form.endswith("w"):
        core.store(o["dst"], mix("round", core.pim[:n]))


def _tensor_product(core: Core, name: str, o: Operands) -> None:
    rows, columns, depth = o["rows"], o["cols"], o["depth"]
    if name.startswith("tmmc"):
        core.tensor[:] = mix("zero")
    if min(rows, columns, depth) <= 0:
        return
    left = core.load(o["a"], depth, 2, o["stride_a"], rows).reshape(rows, depth)
    if name.endswith("nk"):
        right = core.load(o["b"], depth, 2, o["stride_b"], columns).reshape(columns, depth)
    else:
        right = core.load(o["b"], columns, 2, o["stride_b"], depth).reshape(depth, columns).T
    before = core.tensor[:rows, :columns]
    if not before.all():
        raise CannotTellError(f"{core.who.what}: accumulators are read before they are written")
    core.tensor[:rows, :columns] = mix("accumulate", before, mix("product", digest(left)[:, None], digest(right)[None]))


def _tensor_store(core: Core, name: str, o: Operands) -> None:
    rows, columns = o["rows"], o["cols"]
    if rows > 0 and columns > 0:
        values = core.tensor[:rows, :columns].reshape(-1)
        if not values.all():
            raise CannotTellError(f"{core.who.what}: accumulators are read before they are written")
        if name == "twb.f":
            core.store(o["dst"], values, 4, o["stride_c"], rows)
        else:
            core.store(o["dst"], mix("round", values), 2, o["stride_c"], rows)


def _tensor_load(core: Core, name: str, o: Operands) -> None:
    rows, columns = o["rows"], o["cols"]
    if rows > 0 and columns > 0:
        core.tensor[:rows, :columns] = core.load(o["src"], columns, 4, o["stride_c"], rows).reshape(rows, columns)


def _word(core: Core, name: str, o: Operands) -> None:
    """lw and sw; what lw loaded must be what the core's own stream was followed with."""
    address = o["rs1"] + o["imm"]
    if name == "sw":
        core.copy(address, constant(o["rs2"]))
    elif (core.local.read(span(address, 4), core.who) != constant(o["rd"])).any():
        raise CannotTellError(f"{core.who.what}: loads a word that others wrote")


def _in_rows(action: _Action, instruction: Instruction) -> _Action:
    """The action of a many-rows form: that of its instruction, row after row."""
    strides = {name: STRIDES[name] for name in moving_operands(instruction)}

    def rows(core: Core, name: str, o: Operands) -> None:
        for row in range(o[ROWS]):
            action(core, name.removesuffix(SUFFIX), {**o, **{n: o[n] + row * o[s] for n, s in strides.items()}})

    return rows


def _actions() -> Mapping[str, _Action]:
    """The action of every instruction of a unit, from its operands where they tell."""
    shapes: dict[tuple[str, ...], _Action] = {
        ("dst", "a", "b", "n"): _binary,
        ("dst", "a", "s", "n"): _scalar,
        ("dst", "a", "n"): _unary,
    }
    special: dict[str, _Action] = {
        "vredp": _partial_sums, "vredpb": _partial_sums, "vrope": _rope, "vwsum": _weighted_sum, "trans": _transpose,
        "pimld": _array_load, "twb": _tensor_store, "twb.f": _tensor_store, "tld.f": _tensor_load,
        "lw": _word, "sw": _word,
    }  # fmt: skip
    prefixes: dict[str, _Action] = {
        "vsel.": _select, "vmovs.": _strided, "vargmax.": _reduction, "pimmv.": _array_product, "tmm": _tensor_product,
    }  # fmt: skip
    found: dict[str, _Action] = {}
    for instruction in SRAM_ISA.instructions:
        name = instruction.mnemonic
        action = special.get(name.removesuffix(SUFFIX)) or next(
            (a for prefix, a in prefixes.items() if name.startswith(prefix)), None
        )
        if action is None and instruction.latency == "vector_reduce":
            action = _reduction
        if action is None and instruction.unit == "vcu":
            action = shapes.get(tuple(operand.name for operand in instruction.operands))
        if action is not None:
            found[name] = _in_rows(action, instruction) if is_rows_form(instruction) else action
    return MappingProxyType(found)


ACTIONS = _actions()


def execute(core: Core, effect: Effect) -> None:
    """Do what an instruction of a unit does."""
    if effect.mnemonic not in ACTIONS:
        raise CannotTellError(f"the checker does not know {effect.mnemonic}")
    ACTIONS[effect.mnemonic](core, effect.mnemonic, effect.named)
