"""Random graphs of `nn` operators, compiled and run with all checks, beside the reference interpreter.

Every operator that has a reference for given inputs is drawn, on elements of every kind; decoders with caches are in
:mod:`random_graphs.decoders`.  A graph is a list of steps, so that one that fails can be shrunk: to fewer outputs, and
with inputs in the place of steps.
"""
