"""The HBM-PIM part of a target: organisation, command table, timing figures and constraint rows, all data.

Times of a :class:`DramSpec` are *ticks* of ``tick_fs`` femtoseconds (half a clock for HBM3); the named
figures of ``timing`` and the latencies of constraints are *clocks* of ``clock_ticks`` ticks. A constraint
counts from the end of the preceding command's time on the command bus to the end of the following command's
(a command of 1.5 clocks shifts what follows it by what it takes longer than its follower).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pimc.diagnostics import TargetError
from pimc.targets.expression import did_you_mean, evaluate
from pimc.targets.reader import Choices, Figures, Key, Range

#: Commands the simulator knows, in the order of their numbers.  A target describes those that it has.
DRAM_COMMANDS = ("ACT", "GACT", "PRE", "PREA", "RD", "WR", "RDA", "WRA", "REF", "MAC", "WRGB", "RDRES")
#: Scopes of commands and levels of constraints, from the widest to the narrowest.
LEVELS = ("pseudo_channel", "bank_group", "bank")
#: The longest distance or duration, clocks.
MAX_CLOCKS = 1 << 20


@dataclass(frozen=True)
class DramCommand:
    """One DRAM command: its bus time (ticks), banks, effect on them, and when data or effect are there."""

    name: Annotated[str, Choices(*DRAM_COMMANDS)]
    bus: str
    ticks: Annotated[int, Range(1, 64)]
    grid: Annotated[int, Range(1, 64)]
    scope: Annotated[str, Choices(*LEVELS)]
    effect: Annotated[str, Choices("open", "close", "column", "column_close", "refresh", "none")]
    done: str


@dataclass(frozen=True)
class DramConstraint:
    """Least distance, ``latency`` clocks (an expression), from a preceding to a following command on a level.

    ``window`` = n > 0 counts single-bank activations instead: the distance holds from the n-th last one.
    """

    name: str
    level: Annotated[str, Choices(*LEVELS)]
    preceding: Annotated[tuple[str, ...], Choices(*DRAM_COMMANDS)]
    following: Annotated[tuple[str, ...], Choices(*DRAM_COMMANDS)]
    latency: str
    window: Annotated[int, Range(0, 64)] = 0


@dataclass(frozen=True)
class BankPu:
    """The processing unit of a bank."""

    multipliers: Annotated[int, Range(1, 1024)]
    result_registers: Annotated[int, Range(1, 64)]


@dataclass(frozen=True)
class Controller:
    """A pseudo-channel's controller, which runs its group's stream."""

    registers: Annotated[int, Range(1, 32)]
    semaphores: Annotated[int, Range(1, 32)]
    loop_depth: Annotated[int, Range(1, 64)]
    signal_cycles: Annotated[int, Range(0, 1 << 20)]


@dataclass(frozen=True)
class DramSpec:
    """Organisation and timing of one kind of DRAM, the ``[hbm]`` table."""

    stacks: Annotated[int, Range(1, 64)]
    channels: Annotated[int, Range(1, 64)]
    pseudo_channels: Annotated[int, Range(1, 16)]
    bank_groups: Annotated[int, Range(1, 16)]
    banks_per_group: Annotated[int, Range(1, 16)]
    rows: Annotated[int, Range(1, 1 << 24)]
    row_bytes: Annotated[int, Range(32, 1 << 16)]
    column_bytes: Annotated[int, Range(2, 1 << 12)]
    tick_fs: Annotated[int, Range(1, 10**8)]
    clock_ticks: Annotated[int, Range(1, 64)]
    buses: tuple[str, ...]
    controller: Controller
    timing: Annotated[Figures, Range(0, MAX_CLOCKS)]
    commands: Annotated[tuple[DramCommand, ...], Key("command")]
    constraints: Annotated[tuple[DramConstraint, ...], Key("constraint")]
    pu: BankPu | None = None
    """None: the banks have no units, and the commands of such units are none of the target's."""

    @property
    def pch_count(self) -> int:
        """Pseudo-channels of the machine."""
        return self.stacks * self.channels * self.pseudo_channels

    @property
    def banks(self) -> int:
        """Banks of a pseudo-channel; bank b is in bank group b // banks_per_group."""
        return self.bank_groups * self.banks_per_group

    @property
    def columns(self) -> int:
        """Columns of a row."""
        return self.row_bytes // self.column_bytes

    @property
    def clock_fs(self) -> int:
        """Clock period in femtoseconds."""
        return self.tick_fs * self.clock_ticks

    def clocks(self, expression: str, where: str = "hbm") -> int:
        """Value in clocks of an expression over the timing figures."""
        return evaluate(expression, self.timing, where)

    def fs(self, expression: str) -> int:
        """Value in femtoseconds of an expression over the timing figures, e.g. ``fs("nREFI")``."""
        return self.clocks(expression) * self.clock_fs

    def command(self, name: str) -> DramCommand:
        """The command ``name``; TargetError if this target has none such."""
        for command in self.commands:
            if command.name == name:
                return command
        raise TargetError(
            f"the target has no DRAM command {name!r}",
            where="hbm.command",
            hint=did_you_mean(name, DRAM_COMMANDS),
        )

    def banks_of(self, scope: str) -> int:
        """How many banks a command of ``scope`` acts on."""
        return {"pseudo_channel": self.banks, "bank_group": self.banks_per_group, "bank": 1}[scope]

    def check(self, where: str) -> None:
        """Raise :class:`TargetError` for what single keys cannot show: names, expressions, divisibility."""
        if self.row_bytes % self.column_bytes:
            raise TargetError("row_bytes must be a multiple of column_bytes", where=f"{where}: hbm.row_bytes")
        if self.pu is not None and self.pu.multipliers * 2 != self.column_bytes:
            raise TargetError(
                "a PU takes one column of fp16 a MAC, so column_bytes must be 2 * pu.multipliers",
                where=f"{where}: hbm.pu.multipliers",
            )
        names = [command.name for command in self.commands]
        for name in names:
            if names.count(name) > 1:
                raise TargetError(f"command {name!r} is given twice", where=f"{where}: hbm.command")
        for command in self.commands:
            place = f"{where}: hbm.command[{command.name}]"
            if command.bus not in self.buses:
                raise TargetError(
                    f"unknown bus {command.bus!r}", where=place, hint=did_you_mean(command.bus, self.buses)
                )
            self._check_clocks(command.done, f"{place}.done")
        for constraint in self.constraints:
            self._check_constraint(constraint, names, f"{where}: hbm.constraint[{constraint.name}]")
        self._check_refresh(where)

    def _check_clocks(self, expression: str, place: str) -> None:
        clocks = self.clocks(expression, place)
        if not 0 <= clocks <= MAX_CLOCKS:
            raise TargetError(f"{expression!r} is {clocks} clocks, not between 0 and {MAX_CLOCKS}", where=place)

    def _check_refresh(self, where: str) -> None:
        """Refreshes must leave time for other commands."""
        interval = self.timing.get("nREFI", 0)
        busy = max((self.clocks(row.latency) for row in self.constraints if "REF" in row.preceding), default=0)
        if 0 < interval <= busy:
            raise TargetError(
                f"nREFI is {interval}: a refresh takes {busy} clocks, so that nothing else could ever run",
                where=f"{where}: hbm.timing.nREFI",
            )

    def _check_constraint(self, constraint: DramConstraint, names: list[str], place: str) -> None:
        for name in (*constraint.preceding, *constraint.following):
            if name not in names:
                raise TargetError(
                    f"command {name!r} is not in the command table",
                    where=place,
                    hint=did_you_mean(name, names),
                )
        self._check_clocks(constraint.latency, f"{place}.latency")
        if not constraint.window:
            return
        if constraint.level != "pseudo_channel" or set(constraint.preceding) != set(constraint.following):
            raise TargetError("a window needs level pseudo_channel and the same commands on both sides", where=place)
        for name in constraint.preceding:
            if self.banks_of(self.command(name).scope) > constraint.window:
                raise TargetError(f"{name} activates more banks than the window has", where=place)
