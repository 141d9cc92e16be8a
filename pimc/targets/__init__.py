"""Targets: machines as data, one TOML file each."""

from pimc.targets.dram_spec import DRAM_COMMANDS, BankPu, Controller, DramCommand, DramConstraint, DramSpec
from pimc.targets.target import (
    Domain,
    Latency,
    Memory,
    Target,
    Unit,
    list_targets,
    load_target,
    parse_dram,
    parse_target,
)

__all__ = [
    "DRAM_COMMANDS",
    "BankPu",
    "Controller",
    "Domain",
    "DramCommand",
    "DramConstraint",
    "DramSpec",
    "Latency",
    "Memory",
    "Target",
    "Unit",
    "list_targets",
    "load_target",
    "parse_dram",
    "parse_target",
]
