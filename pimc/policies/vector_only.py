"""All arithmetic on the vector units: slow, and a test of everything that does not depend on the other units."""

from pimc.passes.policy import Policy, first_choice

POLICY = Policy(
    "vector-only",
    "all arithmetic on the vector units, weights are streamed",
    first_choice("bank_pim", "sram_pim", "systolic", policy="vector-only"),
)
