"""A machine as data: frozen dataclasses of a target, and its loader.

``load_target("hpim")`` reads the target file beside this module, ``load_target("my.toml")`` a user's own;
``overrides`` such as ``"hbm.timing.nFAW=20"`` or ``"latency.vector.pipeline=6"`` replace single figures (an
element of an array of tables is named by its ``name`` or its index). Every mistake is a TargetError that
names file and key.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypeVar

from pimc.diagnostics import InputError, TargetError
from pimc.files import read_text
from pimc.isa.hbm import MASK
from pimc.limits import OVERRIDE_CHARACTERS, OVERRIDES, TARGET_FILE_BYTES
from pimc.targets.dram_spec import BankPu, DramSpec
from pimc.targets.expression import did_you_mean
from pimc.targets.reader import Choices, Key, Range, read

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Clock:
    """The cores' clock."""

    core_period_fs: Annotated[int, Range(1, 10**9)]


@dataclass(frozen=True)
class Cores:
    """The SRAM-PIM cores and what every core has; each dispatches one instruction a cycle, in order."""

    count: Annotated[int, Range(1, 4096)]
    scalar_registers: Annotated[int, Range(1, 32)]
    config_registers: Annotated[int, Range(1, 32)]
    semaphores: Annotated[int, Range(1, 32)]


@dataclass(frozen=True)
class Domain:
    """A place for operations: its unit."""

    name: str
    unit: str


@dataclass(frozen=True)
class Unit:
    """A functional unit, one per ``scope``; ``name`` is the one of the instruction tables."""

    name: str
    kind: Annotated[
        str,
        Choices("scalar", "vector", "systolic", "sram_pim", "transpose", "transfer", "network", "bank_pim"),
    ]
    scope: Annotated[str, Choices("core", "pseudo_channel", "bank")]


@dataclass(frozen=True)
class Memory:
    """A memory: ``bytes`` per ``scope``; local memories have their ``base`` in the core's address space."""

    name: str
    kind: Annotated[str, Choices("local", "instruction", "array", "buffer")]
    scope: Annotated[str, Choices("core", "pseudo_channel")]
    base: Annotated[int, Range(0, 1 << 32)]
    bytes: Annotated[int, Range(1, 1 << 32)]


@dataclass(frozen=True)
class PimUnit:
    """The SRAM-PIM unit of a core; array row r lies in macro group r % macro_groups."""

    macro_groups: Annotated[int, Range(1, 1024)]
    macros_per_group: Annotated[int, Range(1, 1024)]
    macro_bytes: Annotated[int, Range(2, 1 << 24)]
    multipliers_per_macro: Annotated[int, Range(1, 1024)]
    load_bytes_per_cycle: Annotated[int, Range(2, 1 << 16)]

    @property
    def lanes(self) -> int:
        """fp16 elements of an array row."""
        return self.macros_per_group * self.multipliers_per_macro

    @property
    def bytes(self) -> int:
        """Capacity of the array."""
        return self.macro_groups * self.macros_per_group * self.macro_bytes

    @property
    def rows(self) -> int:
        """Rows of the array."""
        return self.bytes // (2 * self.lanes)


@dataclass(frozen=True)
class Tcu:
    """The systolic array of a core."""

    rows: Annotated[int, Range(1, 4096)]
    columns: Annotated[int, Range(1, 4096)]
    fill_cycles: Annotated[int, Range(0, 1 << 16)]
    drain_elements_per_cycle: Annotated[int, Range(1, 4096)]


@dataclass(frozen=True)
class Vcu:
    """The vector unit of a core (``lanes`` also fixes the order of a reduction)."""

    lanes: Annotated[int, Range(1, 4096)]
    special_lanes: Annotated[int, Range(1, 4096)]


@dataclass(frozen=True)
class Transpose:
    """The transpose unit of a core."""

    elements_per_cycle: Annotated[int, Range(1, 1 << 16)]


@dataclass(frozen=True)
class Transfer:
    """The transfer unit between a core's local memory and its pseudo-channels."""

    queue_depth: Annotated[int, Range(1, 1024)]
    local_bytes_per_cycle: Annotated[int, Range(1, 1 << 16)]


@dataclass(frozen=True)
class Noc:
    """The mesh among the cores: core c at column c % columns, row c // columns; column first, then row."""

    columns: Annotated[int, Range(1, 256)]
    rows: Annotated[int, Range(1, 256)]
    bytes_per_cycle: Annotated[int, Range(1, 1 << 16)]
    hop_cycles: Annotated[int, Range(0, 1 << 16)]
    router_cycles: Annotated[int, Range(0, 1 << 16)]
    injection_cycles: Annotated[int, Range(0, 1 << 16)]


@dataclass(frozen=True)
class Latency:
    """Latency model: busy ``max(1, ceil(work / rate))`` cycles, result ready ``pipeline`` cycles later."""

    name: str
    work: Annotated[str, Choices("instruction", "elements", "bytes", "rows", "steps")]
    rate: Annotated[int, Range(1, 1 << 20)]
    pipeline: Annotated[int, Range(0, 1 << 16)]

    def busy_cycles(self, work: int) -> int:
        """Cycles that ``work`` occupies the unit."""
        return max(1, -(-work // self.rate))


@dataclass(frozen=True)
class Target:
    """A machine.  Field and unit names are those of the TOML file, whose comments give the sources."""

    name: str
    description: str
    clock: Clock
    cores: Cores
    domains: Annotated[tuple[Domain, ...], Key("domain")]
    units: Annotated[tuple[Unit, ...], Key("unit")]
    memories: Annotated[tuple[Memory, ...], Key("memory")]
    tcu: Tcu
    vcu: Vcu
    transpose: Transpose
    transfer: Transfer
    noc: Noc
    latencies: Annotated[tuple[Latency, ...], Key("latency")]
    hbm: DramSpec
    pim_unit: PimUnit | None = None
    """None: the cores have no SRAM-PIM unit."""

    @property
    def array(self) -> PimUnit:
        """The SRAM-PIM unit; TargetError if there is none."""
        return _there(self.pim_unit, self.name, "an SRAM-PIM unit", "pim_unit")

    @property
    def bank_pu(self) -> BankPu:
        """The unit of a bank; TargetError if there is none."""
        return _there(self.hbm.pu, self.name, "units in its banks", "hbm.pu")

    @property
    def unit_names(self) -> frozenset[str]:
        """The names of all units."""
        return frozenset(unit.name for unit in self.units)

    @property
    def pchs_per_core(self) -> int:
        """Pseudo-channels of a tile."""
        return self.hbm.pch_count // self.cores.count

    @property
    def local_bytes(self) -> int:
        """Size of a core's local address space (all local memories)."""
        return max(memory.base + memory.bytes for memory in self.memories if memory.kind == "local")

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the resolved content; the description does not count."""
        content = dataclasses.asdict(dataclasses.replace(self, description=""))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def domain(self, name: str) -> Domain:
        """The domain ``name`` (TargetError if there is none)."""
        return _named(self.domains, name, "domain")

    def unit(self, name: str) -> Unit:
        """The unit ``name`` (TargetError if there is none)."""
        return _named(self.units, name, "unit")

    def memory(self, name: str) -> Memory:
        """The memory ``name`` (TargetError if there is none)."""
        return _named(self.memories, name, "memory")

    def latency(self, name: str) -> Latency:
        """The latency model ``name`` (TargetError if there is none)."""
        return _named(self.latencies, name, "latency")


T = TypeVar("T")


def _there(found: T | None, target: str, what: str, key: str) -> T:
    if found is None:
        raise TargetError(f"target {target} has no {what}", where=key)
    return found


N = TypeVar("N", Domain, Unit, Memory, Latency)


def _named(items: tuple[N, ...], name: str, key: str) -> N:
    for item in items:
        if item.name == name:
            return item
    names = [item.name for item in items]
    raise TargetError(f"the target has no {key} {name!r}", where=f"{key}", hint=did_you_mean(name, names))


def list_targets() -> list[str]:
    """Names of the targets that come with pimc, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_target(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Target:
    """Load a target by name or path, replace figures by ``overrides`` (``key.key=value``), check it all."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = _FOLDER / f"{name_or_path}.toml"
        if str(name_or_path) not in list_targets():
            known = f"targets are {', '.join(list_targets())}, or give a .toml file"
            hint = did_you_mean(str(name_or_path), list_targets()) or known
            raise TargetError(f"unknown target {str(name_or_path)!r}", hint=hint)
    try:
        raw = tomllib.loads(read_text(path, TARGET_FILE_BYTES))
    except InputError as error:
        raise TargetError(f"the target file {error.message}", where=error.where, hint=error.hint) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TargetError(f"not a TOML file: {error}", where=str(path)) from None
    except ValueError:  # Python's limit of digits
        raise TargetError("a number of the file has thousands of digits", where=str(path)) from None
    return parse_target(raw, overrides, path.name)


def parse_target(raw: Mapping[str, object], overrides: Sequence[str] = (), where: str = "target") -> Target:
    """Build a :class:`Target` from the tables of a TOML file; ``where`` names the file in errors."""
    table = copy.deepcopy(dict(raw))
    _override_all(table, overrides)
    target = read(Target, table, where, figures=_figures(table))
    _check(target, where)
    return target


def parse_dram(raw: object, overrides: Sequence[str] = (), where: str = "target") -> DramSpec:
    """Build a :class:`DramSpec` alone from the content of an ``[hbm]`` table."""
    table = {"hbm": copy.deepcopy(raw)}
    _override_all(table, overrides)
    spec = read(DramSpec, table["hbm"], where, "hbm")
    spec.check(where)
    return spec


def _override_all(table: dict[str, object], overrides: Sequence[str]) -> None:
    """Apply overrides in order; a binary carries its own, so their number and lengths have limits."""
    if len(overrides) > OVERRIDES:
        raise TargetError(f"{len(overrides)} overrides, the limit is {OVERRIDES}", where="--set")
    for override in overrides:
        if len(override) > OVERRIDE_CHARACTERS:
            raise TargetError(
                f"an override has {len(override)} characters, the limit is {OVERRIDE_CHARACTERS}",
                where=f"--set {override[:40]}...",
            )
        _override(table, override)


def _override(table: dict[str, object], override: str) -> None:
    """Apply ``a.b.c=value`` (a TOML value, else a string) to the raw tables; the key must exist."""
    place = f"--set {override}"
    path, separator, value_text = override.partition("=")
    if not separator:
        raise TargetError("an override is key.key=value", where=place)
    *parents, last = path.strip().split(".")
    node: object = table
    for key in parents:
        node = _step(node, key, place)
    try:
        value: object = tomllib.loads(f"value = {value_text}")["value"]
    except (ValueError, RecursionError):  # not TOML, an integer of thousands of digits, absurd nesting
        value = value_text.strip()
    old = _step(node, last, place)  # it exists
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list):
        node[next(index for index, item in enumerate(node) if item is old)] = value


def _step(node: object, key: str, place: str) -> object:
    if isinstance(node, dict):
        if key in node:
            return node[key]
        raise TargetError(f"unknown key {key!r}", where=place, hint=did_you_mean(key, node))
    if isinstance(node, list):
        named = {str(item.get("name", index)): item for index, item in enumerate(node) if isinstance(item, dict)}
        if key in named:
            return named[key]
        if key.isdecimal() and int(key) < len(node):
            return node[int(key)]
        raise TargetError(f"no element {key!r}", where=place, hint=did_you_mean(key, named))
    raise TargetError(f"{key!r} is a key of no table", where=place)


def _figures(table: Mapping[str, object], prefix: str = "") -> dict[str, int]:
    """All integers of nested tables under their dotted keys, for expressions."""
    found: dict[str, int] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found.update(_figures(value, f"{prefix}{key}."))
        elif isinstance(value, int) and not isinstance(value, bool):
            found[prefix + key] = value
    return found


def _check(target: Target, where: str) -> None:
    """What single keys cannot show."""
    target.hbm.check(where)
    groups: dict[str, list[str]] = {
        "domain": [item.name for item in target.domains],
        "unit": [item.name for item in target.units],
        "memory": [item.name for item in target.memories],
        "latency": [item.name for item in target.latencies],
    }
    for key, names in groups.items():
        for name in names:
            if names.count(name) > 1:
                raise TargetError(f"{name!r} is given twice", where=f"{where}: {key}")
    for domain in target.domains:
        if domain.unit not in groups["unit"]:
            raise TargetError(
                f"unknown unit {domain.unit!r}",
                where=f"{where}: domain[{domain.name}].unit",
                hint=did_you_mean(domain.unit, groups["unit"]),
            )
    cores, pchs, noc = target.cores.count, target.hbm.pch_count, target.noc
    if pchs % cores:
        raise TargetError(f"{cores} cores cannot share {pchs} pseudo-channels evenly", where=f"{where}: cores.count")
    most = MASK.field.width
    if pchs // cores > most:
        raise TargetError(
            f"a core has {pchs // cores} pseudo-channels, and the mask of a command names {most}",
            where=f"{where}: cores.count",
            hint=f"at least {-(-pchs // most)} cores share {pchs} pseudo-channels",
        )
    if noc.columns * noc.rows < cores:
        raise TargetError(f"a {noc.columns} x {noc.rows} mesh is too small for {cores} cores", where=f"{where}: noc")
    _check_optional(target, where)
    _check_memories(target, where)


def _check_optional(target: Target, where: str) -> None:
    """A unit that a machine may lack is there with its figures and its memory, or not at all."""
    memories = {memory.kind for memory in target.memories} | {memory.name for memory in target.memories}
    kinds = {unit.kind for unit in target.units}
    for kind, key, figures, memory in (
        ("sram_pim", "pim_unit", target.pim_unit, "array"),
        ("bank_pim", "hbm.pu", target.hbm.pu, "global_buffer"),
    ):
        parts = {f"a unit of kind {kind}": kind in kinds, f"[{key}]": figures is not None}
        parts[f"a memory {memory}"] = memory in memories
        if len(set(parts.values())) > 1:
            has, lacks = (
                " and ".join(name for name, there in parts.items() if there is want) for want in (True, False)
            )
            raise TargetError(
                f"the target has {has}, and not {lacks}",
                where=f"{where}: {key}",
                hint="they go together, or none is there",
            )
    if target.hbm.pu is not None:
        for command in ("GACT", "MAC", "WRGB", "RDRES"):
            target.hbm.command(command)


def _check_memories(target: Target, where: str) -> None:
    end = 0
    local = [memory for memory in target.memories if memory.kind == "local"]
    for memory in sorted(local, key=lambda item: item.base):
        if memory.base != end:
            raise TargetError(
                f"local memories must follow each other, expected {end}",
                where=f"{where}: memory[{memory.name}].base",
            )
        end += memory.bytes
    if not local:
        raise TargetError("a core needs a local memory", where=f"{where}: memory")
    for memory in target.memories:
        place = f"{where}: memory[{memory.name}].bytes"
        if memory.kind == "local" and memory.bytes % 2:
            raise TargetError("must be a multiple of 2, the size of an fp16", where=place)
        if memory.kind == "array" and memory.bytes != target.array.bytes:
            raise TargetError(f"the macros of [pim_unit] hold {target.array.bytes} bytes", where=place)
        if memory.kind == "buffer" and memory.bytes % target.hbm.column_bytes:
            raise TargetError("must be a multiple of hbm.column_bytes", where=place)
