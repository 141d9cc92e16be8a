"""Weights are streamed to the cores, and never multiplied in the banks."""

from pimc.passes.policy import Policy, first_choice

POLICY = Policy(
    "no-bank-pim",
    "no work in the banks: weights are streamed to the cores",
    first_choice("bank_pim", policy="no-bank-pim"),
)
