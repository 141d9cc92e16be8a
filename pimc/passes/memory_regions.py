"""What the layout pass places: the tensors of a module that need memory in a tile, and how often.

Collected from a partitioned module: weights of matrix operations, tables, vectors, and the caches by head
round.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.dialects import arith, func, scf
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, IntegerAttr, ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from pimc.diagnostics import InputError
from pimc.ir import nn, pim
from pimc.ir.constants import constant_name, element_halves, elements, is_stored
from pimc.ir.locations import where
from pimc.passes.fusion import weight_param


@dataclass(frozen=True)
class Layers:
    """Values a layer index takes: ``first .. stop``; ``NO_LAYERS`` for a tensor that is there once."""

    first: int
    stop: int

    @property
    def copies(self) -> int:
        """Copies to store (index 0 up to the last layer, so that the address is a multiple of the index)."""
        return self.stop


NO_LAYERS = Layers(0, 0)


@dataclass
class GemvGroup:
    """Matrix operations over the same weights, cut the same way."""

    weights: tuple[str, ...]
    shards: tuple[pim.ShardAttr, ...]
    k: int
    n_local: int
    layers: Layers
    ops: list[pim.MatrixOp] = field(default_factory=list)


@dataclass
class LinearTensor:
    """A tensor of the linear address space: ``rows`` of ``row_bytes`` in every tile (``cores``: see RegionAttr)."""

    kind: str
    name: str
    rows: int
    row_bytes: int
    layers: Layers
    round: int = 0
    cores: int = 0
    ops: list[Operation] = field(default_factory=list)

    @property
    def by_position(self) -> bool:
        """Whether it is a table that is read at positions, as every tile holds such tables."""
        return self.kind == "replicated" and self.rows > 1


@dataclass
class Tensors:
    """Everything a tile holds, in order of first use."""

    gemv: list[GemvGroup]
    linear: list[LinearTensor]
    caches: list[LinearTensor]
    constants: dict[str, DenseIntOrFPElementsAttr] = field(default_factory=dict)


def collect(module: ModuleOp, column_bytes: int) -> Tensors:
    """The tensors of ``module``; row pitches of tables are multiples of ``column_bytes``."""
    gemv: dict[tuple[object, ...], GemvGroup] = {}
    linear: dict[tuple[str, str], LinearTensor] = {}
    caches: dict[tuple[str, int], LinearTensor] = {}
    constants: dict[str, DenseIntOrFPElementsAttr] = {}
    for op in module.walk():
        match op:
            case pim.MatrixOp():
                _add_matrix(op, gemv)
            case nn.ParamOp():
                for tensor in _linear_uses(op, column_bytes):
                    known = linear.setdefault((tensor.kind, tensor.name), tensor)
                    known.ops.append(op)
                    known.rows = max(known.rows, tensor.rows)
            case nn.ConstantOp() if is_stored(op.value):
                name = constant_name(op.value)
                size = 2 * elements(op.value) * element_halves(op.value)
                linear.setdefault(("flat", name), LinearTensor("flat", name, 1, size, NO_LAYERS))
                constants[name] = op.value
            case pim.KvAppendOp() | pim.AttentionOp():
                _add_caches(module, op, column_bytes, caches)
            case _:
                pass
    return Tensors(list(gemv.values()), list(linear.values()), list(caches.values()), constants)


def _add_matrix(op: pim.MatrixOp, groups: dict[tuple[object, ...], GemvGroup]) -> None:
    params = [weight_param(weight) for weight in op.weights]
    names = tuple(param.weight_name.data for param in params if param is not None)
    shards = tuple(shard for output in op.outputs if (shard := pim.shard_of(output.type)) is not None)
    layers = {layers_of(param.layer, param) for param in params if param is not None}
    if len(names) != len(params) or len(layers) != 1:
        raise InputError("the weights of a matrix operation must be stored, of one layer", where=where(op))
    key: tuple[object, ...] = (names, shards)
    if key not in groups:
        k = nn.tensor_of(op.x).get_shape()[-1]
        groups[key] = GemvGroup(names, shards, k, op.local_offsets[-1], layers.pop())
    groups[key].ops.append(op)


def _linear_uses(op: nn.ParamOp, column_bytes: int) -> list[LinearTensor]:
    """How a parameter is used other than as the weight of a matrix operation (at most once a kind)."""
    name, type_ = op.weight_name.data, nn.tensor_of(op.result)
    layers = layers_of(op.layer, op)
    shape = type_.get_shape()
    width = nn.tensor_bytes(type_) // max(1, _count(shape)) * (shape[-1] if shape else 1)
    found: dict[str, LinearTensor] = {}
    for use in op.result.uses:
        user = use.operation
        if isinstance(user, pim.MatrixOp) and op.result in tuple(user.weights):
            continue
        if isinstance(user, pim.EmbeddingOp) and op.result is user.table:
            kind = "replicated" if user.replicated else "rows"
            rows = _count(shape[:-1]) if user.replicated else user.rows_per_core.value.data
        elif isinstance(user, pim.ConvOp) and op.result is user.weight:
            kind, rows, width = user.region, user.outputs_per_core, nn.tensor_bytes(type_) // max(1, shape[0])
        elif isinstance(user, pim.AttentionOp) and op.result is user.bias:
            kind, rows = "replicated", shape[0]
        elif len(shape) == 1:
            kind, rows = "replicated", 1
        else:
            found["flat"] = LinearTensor("flat", name, 1, nn.tensor_bytes(type_), layers)
            continue
        pitch = width if rows == 1 else -(-width // column_bytes) * column_bytes
        found[kind] = LinearTensor(kind, name, rows, pitch, layers)
    return list(found.values())


def _add_caches(
    module: ModuleOp,
    op: pim.KvAppendOp | pim.AttentionOp,
    column_bytes: int,
    caches: dict[tuple[str, int], LinearTensor],
) -> None:
    for symbol in (op.k, op.v):
        name = symbol.root_reference.data
        type_ = nn.cache_type(op, symbol)
        if type_ is None:
            raise InputError(f"the module has no cache @{name}", where=where(op))
        layers, slots, _, dim = type_.get_shape()
        head_bytes = nn.tensor_bytes(type_) // _count(type_.get_shape()) * dim
        row_bytes = -(-head_bytes // column_bytes) * column_bytes
        for index, r in enumerate(op.rounds.head_rounds):
            rows = -(-slots // r.cores_per_head)
            tensor = LinearTensor("cache", name, rows, row_bytes, Layers(0, layers), index, r.cores_per_head)
            known = caches.setdefault((name, index), tensor)
            if (known.rows, known.row_bytes) != (rows, row_bytes):
                raise InputError(f"cache @{name} is cut in two ways", where=where(op))
            known.ops.append(op)


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for dim in shape:
        total *= dim
    return total


def layers_of(index: SSAValue | None, op: Operation) -> Layers:
    """The values that a layer index takes: a loop's induction variable, followed through calls."""
    if index is None:
        return NO_LAYERS
    owner = index.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        return Layers(owner.value.value.data, owner.value.value.data + 1)
    if isinstance(owner, Block):
        parent = owner.parent_op()
        if isinstance(parent, scf.ForOp) and owner.args[0] is index:
            first, stop = _constant(parent.lb, op), _constant(parent.ub, op)
            if _constant(parent.step, op) != 1:
                raise InputError("a loop over layers must count by 1", where=where(op))
            return Layers(first, stop)
        if isinstance(parent, func.FuncOp):
            found = [layers_of(call.arguments[owner.args.index(index)], call) for call in _calls(parent)]
            if found:
                return Layers(min(item.first for item in found), max(item.stop for item in found))
    raise InputError("cannot tell the values of a layer index", where=where(op))


def _calls(function: func.FuncOp) -> list[func.CallOp]:
    root: Operation = function
    while (parent := root.parent_op()) is not None:
        root = parent
    name = function.sym_name.data
    return [op for op in root.walk() if isinstance(op, func.CallOp) and op.callee.root_reference.data == name]


def _constant(value: SSAValue, op: Operation) -> int:
    owner = value.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        return owner.value.value.data
    raise InputError("the bounds of a loop over layers must be constants", where=where(op))


__all__ = ["NO_LAYERS", "GemvGroup", "Layers", "LinearTensor", "Tensors", "collect", "layers_of"]
