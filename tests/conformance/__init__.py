"""The node tests of the ONNX project, run in two columns: the reference interpreter, and the simulated hardware."""
