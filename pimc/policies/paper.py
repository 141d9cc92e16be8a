"""HPIM section VI.B: prefill on the tensor units, decode in the banks and on the SRAM-PIM units."""

from pimc.passes.policy import Policy, first_choice

POLICY = Policy("paper", "each operation on the unit that HPIM section VI.B gives it (the default)", first_choice())
