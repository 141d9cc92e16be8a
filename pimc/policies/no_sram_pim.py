"""Attention on the tensor units, also of one token."""

from pimc.passes.policy import Policy, first_choice

POLICY = Policy(
    "no-sram-pim",
    "no work on the SRAM-PIM units: attention on the tensor units",
    first_choice("sram_pim", policy="no-sram-pim"),
)
