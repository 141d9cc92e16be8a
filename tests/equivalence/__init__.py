"""Whether two programs compute the same: values as terms, and order from semaphores alone.

Independent of the simulator's engine: it knows the instruction sets (docs/isa.md), not the engine, and no times. A
program is executed symbolically: control and addresses with their numbers, data as *terms* (hashes of the operations
that made a value from constants). Two programs are equivalent if all outputs of a series of runs are the same terms
(of a single run: all of HBM too), and if in both every two accesses that conflict are ordered whatever the units'
times are, which :mod:`equivalence.order` decides from the semaphores alone. So a verdict "equivalent" holds for any
weights and any timing, at the given tokens and positions.

Assumed: values are finite, so that the zero weights of padding leave nothing of what they multiply, and the softmax of
a single score is 1.
"""
