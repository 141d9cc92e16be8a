"""ONNX models -> IR.  Importing this package imports `onnx`."""

from pimc.frontends.onnx.importer import import_onnx

__all__ = ["import_onnx"]
