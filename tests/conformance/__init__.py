"""Suites that others wrote, run in two columns: the reference interpreter, and the simulated hardware."""
