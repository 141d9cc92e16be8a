"""The interpreter: runs entry points of a module on numpy arrays and keeps its global state (the KV caches).

It is the reference that compiled programs are compared with.  Values of float tensors are held as float32; in
precision ``f16`` every result of type f16 is rounded to fp16 (and held as float32), in precision ``f32`` it
is not.  Values are freed after their last use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    ArrayAttr,
    BFloat16Type,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    Float16Type,
    Float64Type,
    IndexType,
    IntegerType,
    ModuleOp,
    Signedness,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp
from xdsl.dialects.ml_program import GlobalOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.traits import IsTerminator

from pimc.diagnostics import InputError, PimcError
from pimc.ir.aliases import with_aliases
from pimc.ir.interpreter.cut_ops import is_cut, run_by_core
from pimc.ir.interpreter.table import Array, ImplementationTable, Value
from pimc.ir.locations import where
from pimc.ir.weights import WeightStore

Precision: TypeAlias = Literal["f16", "f32"]
Plan: TypeAlias = list[tuple[Operation, tuple[SSAValue, ...]]]


class Interpreter:
    """Runs the functions of a module.

    ``weights`` may be None for a module without `nn.param`.  Weights are converted once and kept; global
    state persists from call to call until :meth:`reset`.
    """

    def __init__(
        self,
        module: ModuleOp,
        weights: WeightStore | None = None,
        precision: Precision = "f16",
        *,
        table: ImplementationTable | None = None,
    ) -> None:
        from pimc.ir.interpreter.tables import default_table

        self.module = module
        self.weights = weights if weights is None else with_aliases(module, weights)
        self.precision: Precision = precision
        self.table = default_table() if table is None else table
        self.state: dict[str, Array] = {}
        self._weight_cache: dict[str, Array] = {}
        self._plans: dict[Block, Plan] = {}
        self.reset()

    def reset(self) -> None:
        """Set the global state to its initial values: those written in the IR, else zeros."""
        self.state = {op.sym_name.data: self._initial(op) for op in self.module.ops if isinstance(op, GlobalOp)}

    def _initial(self, op: GlobalOp) -> Array:
        type_ = op.type
        if not isinstance(type_, TensorType):
            raise InputError(f"global {op.sym_name.data} is no tensor", where=where(op))
        if isinstance(op.value, DenseIntOrFPElementsAttr):
            return dense_values(op.value).reshape(type_.get_shape()).astype(held_dtype(type_.element_type))
        return np.zeros(type_.get_shape(), held_dtype(type_.element_type))

    def function(self, name: str) -> FuncOp:
        """The function of that name; InputError with the names there are."""
        functions = {op.sym_name.data: op for op in self.module.ops if isinstance(op, FuncOp)}
        if name not in functions:
            raise InputError(f"no function {name!r} in the module", hint=f"there are: {', '.join(functions)}")
        return functions[name]

    def call(self, name: str, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Run an entry point on named inputs; returns named outputs.

        Names are the ``pimc.name`` of arguments and results, else ``arg0``, ``result0`` ...  Float outputs
        are float16 where the type is f16 and the precision f16, else float32.  Raises InputError for a
        missing or unknown input, a wrong shape, and for what fails inside (with the operation's location).
        """
        function = self.function(name)
        arguments = self._bind(function, inputs)
        self._plans.clear()
        with np.errstate(all="ignore"):
            results = self.run_function(function, arguments)
        names = port_names(function.res_attrs, len(results), "result")
        types = function.function_type.outputs.data
        return {n: self._output(v, t) for n, v, t in zip(names, results, types, strict=True)}

    def _bind(self, function: FuncOp, inputs: Mapping[str, npt.ArrayLike]) -> list[Value]:
        entry = function.sym_name.data
        types = function.function_type.inputs.data
        names = port_names(function.arg_attrs, len(types), "arg")
        unknown = sorted(set(inputs) - set(names))
        missing = sorted(set(names) - set(inputs))
        if unknown or missing:
            problem = f"has no input {unknown[0]!r}" if unknown else f"needs the input {missing[0]!r}"
            raise InputError(f"entry {entry!r} {problem}", hint=f"inputs: {', '.join(names)}")
        return [input_value(entry, n, inputs[n], t) for n, t in zip(names, types, strict=True)]

    def _output(self, value: Value, type_: Attribute) -> Array:
        array = np.asarray(value)
        half = isinstance(type_, TensorType) and isinstance(type_.element_type, Float16Type)
        return array.astype(np.float16) if half and self.precision == "f16" else np.array(array)

    def run_function(self, function: FuncOp, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """Run a function of the module on values as they are held."""
        if not function.body.blocks:
            raise InputError(f"function {function.sym_name.data!r} has no body", where=where(function))
        return Frame(self).run_region(function.body, arguments)

    def weight(self, name: str, type_: Attribute, op: Operation) -> Array:
        """A weight as float32, rounded to its type; InputError if it does not exist, has another shape or
        overflows.
        """
        if name not in self._weight_cache:
            self._weight_cache[name] = self._load(name, type_, op)
        return self._weight_cache[name]

    def _load(self, name: str, type_: Attribute, op: Operation) -> Array:
        if self.weights is None:
            raise InputError(f"weight {name!r} is needed, and no weights were given", where=where(op))
        array = self.weights[name]
        assert isinstance(type_, TensorType)
        if array.shape != type_.get_shape():
            raise InputError(f"weight {name!r} has shape {array.shape}, the IR says {type_}", where=where(op))
        wide = np.asarray(array, dtype=np.float32)
        with np.errstate(over="ignore"):
            rounded = np.ascontiguousarray(self.round(wide, type_))
        if rounded is not wide and bool((np.isinf(rounded) & np.isfinite(wide)).any()):
            raise InputError(f"weight {name!r} has values beyond the range of {type_.element_type}", where=where(op))
        return rounded

    def round(self, value: Value, type_: Attribute) -> Value | Array:
        """``value`` rounded to ``type_`` and held as such; scalars stay as they are."""
        if not isinstance(type_, TensorType):
            return value
        element = type_.element_type
        array = np.asarray(value)
        if self.precision == "f16" and isinstance(element, Float16Type):
            return array.astype(np.float16).astype(np.float32)
        if self.precision == "f16" and isinstance(element, BFloat16Type):
            return round_bf16(array.astype(np.float32))
        return array.astype(held_dtype(element), copy=False)

    def plan(self, block: Block) -> Plan:
        """Operations of ``block`` with the values of the block that are dead after each."""
        if block not in self._plans:
            self._plans[block] = make_plan(block)
        return self._plans[block]


class Frame:
    """One activation of a function: the live values."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self.values: dict[SSAValue, Value] = {}

    def run_region(self, region: Region, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """Run a region of one block; returns the operands of its terminator."""
        block = region.block
        self.values.update(zip(block.args, arguments, strict=True))
        for op, dead in self.interpreter.plan(block):
            if op.has_trait(IsTerminator):
                results = tuple(self.values[operand] for operand in op.operands)
                for value in dead:
                    self.values.pop(value, None)
                return results
            self._run(op)
            for value in dead:
                self.values.pop(value, None)
        return ()

    def _run(self, op: Operation) -> None:
        entry = self.interpreter.table.lookup(op)
        try:
            operands = [self.values[operand] for operand in op.operands]
            results = run_by_core(self, entry, op, operands) if is_cut(op) else entry.run(self, op, operands)
        except PimcError:
            raise
        except (ValueError, IndexError, ArithmeticError) as error:
            raise InputError(f"{op.name}: {error}", where=where(op)) from error
        for result, value in zip(op.results, results, strict=True):
            self.values[result] = value if entry.exact else self.interpreter.round(value, result.type)


def make_plan(block: Block) -> Plan:
    """The operations of ``block``, each with the values defined in the block whose last use it is."""
    last: dict[SSAValue, int] = dict.fromkeys(block.args, 0)
    ops = list(block.ops)
    for index, op in enumerate(ops):
        for result in op.results:
            last[result] = index
        for inner in op.walk():
            for operand in inner.operands:
                if _defined_in(operand, block):
                    last[operand] = index
    dead: list[list[SSAValue]] = [[] for _ in ops]
    for value, index in last.items():
        dead[index].append(value)
    return [(op, tuple(values)) for op, values in zip(ops, dead, strict=True)]


def _defined_in(value: SSAValue, block: Block) -> bool:
    owner = value.owner
    if isinstance(value, BlockArgument):
        return owner is block
    return isinstance(owner, Operation) and owner.parent is block


def held_dtype(element: Attribute) -> npt.DTypeLike:
    """The numpy type in which elements are held: float32 for floats (float64 for f64), integers by width."""
    if isinstance(element, IndexType):
        return np.int64
    if isinstance(element, IntegerType):
        width: int = element.width.data
        kind = "u" if element.signedness.data == Signedness.UNSIGNED else "i"
        return np.bool_ if width == 1 else np.dtype(f"{kind}{max(1, width // 8)}")
    return np.float64 if isinstance(element, Float64Type) else np.float32


def round_bf16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round float32 to bfloat16, nearest even, held as float32."""
    bits = array.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(array), array, rounded)


def to_bf16(array: Array) -> npt.NDArray[np.float32]:
    """Any numbers rounded once to bfloat16, nearest even, held as float32."""
    near = array.astype(np.float32)
    if array.dtype.itemsize > 4:
        wide = array.astype(np.float64)
        tie = (near.view(np.uint32) & 0xFFFF) == 0x8000  # only then does the rounding to float32 decide
        beyond = np.nextafter(near, np.where(wide > near, np.inf, -np.inf).astype(np.float32))
        near = np.where(tie & (wide != near), beyond, near)
    return round_bf16(near)


def dense_values(attribute: DenseIntOrFPElementsAttr) -> Array:
    """The values of a dense attribute as an array of the attribute's shape: floats as float64, integers exactly."""
    element = attribute.get_element_type()
    dtype = held_dtype(element) if isinstance(element, IntegerType | IndexType) else np.float64
    return np.array(attribute.get_values(), dtype=dtype).reshape(attribute.get_shape())


def port_names(attributes: ArrayAttr[DictionaryAttr] | None, count: int, default: str) -> list[str]:
    """Names of arguments or results: their ``pimc.name``, else ``default`` with the number."""
    names: list[str] = []
    for index in range(count):
        named = attributes.data[index].data.get("pimc.name") if attributes is not None else None
        names.append(named.data if isinstance(named, StringAttr) else f"{default}{index}")
    return names


def input_value(entry: str, name: str, value: npt.ArrayLike, type_: Attribute) -> Value:
    """An input as it is held; InputError where its shape or kind is not that of the type."""
    array = np.asarray(value)
    if not isinstance(type_, TensorType):
        return cast("int | float", array.item())
    if array.shape != type_.get_shape():
        raise InputError(f"input {name!r} of {entry!r} has shape {array.shape}, must be {type_}")
    dtype = np.dtype(held_dtype(type_.element_type))
    if dtype.kind in "iu" and array.dtype.kind not in "iu":
        raise InputError(f"input {name!r} of {entry!r} holds {array.dtype}, must be {type_}")
    return array.astype(dtype)
