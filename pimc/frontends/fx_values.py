"""What an FX node stands for while its graph is imported, and the small questions converters ask about
nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from xdsl.dialects.builtin import Float32Type, IntegerType, TensorType, f32, i1, i32
from xdsl.ir import Attribute, SSAValue

from pimc.frontends.unsupported import UnsupportedError

if TYPE_CHECKING:
    import torch

Element: TypeAlias = Float32Type | IntegerType

_INTEGERS: Final = frozenset({"int64", "int32", "int16", "int8", "uint8"})
_FLOATS: Final = frozenset({"float32", "float64", "float16", "bfloat16"})


@dataclass(frozen=True)
class ParamRef:
    """A weight that no operator has asked for yet: its name (with view suffixes) and shape."""

    name: str
    shape: tuple[int, ...]

    def transposed(self) -> ParamRef:
        """The transpose of a matrix."""
        name = self.name.removesuffix("^T") if self.name.endswith("^T") else f"{self.name}^T"
        return ParamRef(name, (self.shape[1], self.shape[0]))

    def rows(self, start: int, stop: int) -> ParamRef:
        """Rows start to stop-1."""
        if (start, stop) == (0, self.shape[0]):
            return self
        return ParamRef(f"{self.name}[{start}:{stop}]", (stop - start, *self.shape[1:]))


@dataclass(frozen=True)
class CacheRef:
    """The cache buffer of one layer; ``symbol`` names the global."""

    symbol: str
    layer: int


@dataclass(frozen=True)
class Poison:
    """The result of an unsupported operator: whatever depends on it is left out without a message of its
    own.
    """


@dataclass(frozen=True)
class Folded:
    """A node that needs no input: its value is computed, and becomes a weight or constant where it is used."""


Meaning: TypeAlias = "SSAValue | ParamRef | CacheRef | Poison | Folded | Sequence[Meaning]"


def element_of(dtype: torch.dtype) -> Element:
    """The IR's element type: f32 for floats, i32 for integers, i1 for bool."""
    name = str(dtype).removeprefix("torch.")
    if name in _FLOATS:
        return f32
    if name in _INTEGERS:
        return i32
    if name == "bool":
        return i1
    raise UnsupportedError(f"element type {name}")


def static_shape(sizes: Sequence[object]) -> tuple[int, ...]:
    """A shape of plain numbers; symbolic sizes are not supported."""
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedError(f"dynamic shape {tuple(map(str, sizes))}")
    return tuple(int(str(size)) for size in sizes)


def tensor_type(value: object) -> TensorType[Attribute]:
    """The type of a tensor that the exporter knows by its shape and element type."""
    if value is None or not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise UnsupportedError("a result that is no tensor")
    return TensorType(element_of(value.dtype), static_shape(value.shape))


def result_type(node: torch.fx.Node) -> TensorType[Attribute]:
    """The type of a node's tensor result."""
    return tensor_type(node.meta.get("val"))


def arguments_of(node: torch.fx.Node) -> dict[str, object]:
    """Arguments by the names of the operator's schema, defaults included."""
    parameters = node.target._schema.arguments
    bound: dict[str, object] = {
        parameter.name: parameter.default_value for parameter in parameters if parameter.has_default_value()
    }
    bound.update((parameter.name, value) for parameter, value in zip(parameters, node.args, strict=False))
    bound.update(node.kwargs)
    return bound


def target_of(node: torch.fx.Node) -> str:
    """The operator's name, ``aten.linear.default``; the plain name of other callables."""
    return str(node.target) if hasattr(node.target, "_schema") else getattr(node.target, "__name__", str(node.target))


def original_of(node: torch.fx.Node) -> tuple[str, str]:
    """Name and operator of the node of the exported program that ``node`` was decomposed from, or its own."""
    name, target = node.name, target_of(node)
    sources = node.meta.get("from_node") or []
    while sources:
        name, target = sources[-1].name, str(sources[-1].target)
        sources = sources[-1].from_node
    return name, target


def mutates(node: torch.fx.Node) -> bool:
    """Whether an operator writes to one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def module_path(node: torch.fx.Node, prefix: str) -> str:
    """Path of the module that a node came from (``model.layers.0.mlp``), without the wrapper's ``prefix``."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    if path == prefix:
        return "model"
    return (path.removeprefix(prefix + ".") if prefix else path) or "entry"


def source_line(node: torch.fx.Node) -> str | None:
    """``file.py:12`` of the Python line that a node came from; the user's line where torch called torch."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    frames = [line.removeprefix('File "') for line in lines if line.startswith('File "')]
    own = [line for line in frames if "/torch/" not in line.partition('", line ')[0]]
    if not frames:
        return None
    name, _, rest = (own or frames)[-1].partition('", line ')
    return f"{name.rsplit('/', maxsplit=1)[-1]}:{rest.split(',')[0]}"
