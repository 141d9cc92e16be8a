"""Entries: functions, layer loops, inputs and outputs, and the table of lowerings by operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from xdsl.dialects import func, scf
from xdsl.dialects.arith import AddiOp, MuliOp
from xdsl.dialects.arith import ConstantOp as ArithConstantOp
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, TensorType
from xdsl.ir import Block, Operation, SSAValue

from pimc.backends.builder import HbmBuilder, SramBuilder
from pimc.backends.lower import elementwise, functions, reductions, search, shape
from pimc.backends.lower.choices import Lowering, choice_of
from pimc.backends.lower.context import (
    INTEGER_BYTES,
    LAYER_ROW,
    LoweringContext,
    LoweringOptions,
    Semaphores,
    UnsupportedFormError,
    element_bytes,
    empty,
    is_wide,
    placeholder,
    rows_of,
    shape_of,
    widths_of,
)
from pimc.backends.lower.dram_values import lower_empty, lower_fill, lower_read, lower_spill, lower_write
from pimc.backends.lower.embedding import lower_row_of_a_core
from pimc.backends.lower.exchange import lower_all_gather
from pimc.backends.lower.gemv import collect_gemv, issue_gemv
from pimc.backends.lower.indexing import (
    lower_gather_elements,
    lower_gather_nd,
    lower_scatter_elements,
    lower_scatter_nd,
)
from pimc.backends.lower.pool import lower_max_pool
from pimc.backends.lower.ports import lower_inputs, lower_outputs
from pimc.backends.lower.regions import Regions
from pimc.backends.lower.relayout import lower_change, lower_take
from pimc.backends.lower.values import Integers, Positions, Scalar, Strip, Tensor, Weight
from pimc.backends.lower.vector import (
    copy,
    lower_gelu,
    lower_layer_norm,
    lower_rms_norm,
    lower_rope,
    lower_select_token,
)
from pimc.backends.synchronise import synchronise
from pimc.diagnostics import UnsupportedItem, UnsupportedModelError
from pimc.ir import nn
from pimc.ir.bank_layout import TileGeometry
from pimc.ir.constants import constant_name, is_stored
from pimc.ir.hbm import ProgramOp as HbmProgramOp
from pimc.ir.interpreter.core import dense_values
from pimc.ir.layout import shard_of
from pimc.ir.memory_map import MemoryMap
from pimc.ir.pim.changes import AllGatherOp, AllToAllOp, TakeOp
from pimc.ir.pim.ops import (
    AsyncOp,
    AwaitOp,
    GemvOp,
    SelectTokenOp,
    YieldOp,
    is_bias,
)
from pimc.ir.pim.values import EmptyOp, FillOp, ReadOp, SpillOp, WriteOp, is_row_loop
from pimc.ir.sram_control import ProgramOp as SramProgramOp
from pimc.targets.target import Target

HINT = "docs/passes.md says what lower accepts; pimc opt shows an operation before lower"


def lower_module(module: ModuleOp, target: Target, options: LoweringOptions | None = None) -> None:
    """Replace the entry functions of a scheduled module by ``sram.program`` and ``hbm.program`` operations.

    Raises UnsupportedModelError, naming every operation that has no lowering, or not in its form.
    """
    stated, geometry = MemoryMap.of(module), TileGeometry.of(target)
    stated.check(geometry, target.cores.count, target.hbm.rows)
    memory = Regions.of(stated, geometry)
    functions = {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, func.FuncOp)}
    called = {op.callee.string_value() for op in module.walk() if isinstance(op, func.CallOp)}
    programs: list[Operation] = []
    problems: list[UnsupportedItem] = []
    for name, function in functions.items():
        if name not in called and function.body.blocks:
            made, found = lower_entry(function, functions, memory, target, options or LoweringOptions())
            programs.extend(made)
            problems.extend(found)
    if problems:
        items = list(dict.fromkeys(problems))
        raise UnsupportedModelError(items, hint=HINT, where=items[0].node if len(items) == 1 else None)
    for op in list(module.body.block.ops):  # functions, and the caches that the memory map now stands for
        op.detach()
        op.erase(safe_erase=False)
    module.body.block.add_ops(programs)


def lower_entry(
    function: func.FuncOp,
    functions: Mapping[str, func.FuncOp],
    memory: Regions,
    target: Target,
    options: LoweringOptions,
) -> tuple[list[Operation], list[UnsupportedItem]]:
    """The programs of one entry, one text for all cores and one stream for all groups; and what is not supported."""
    entry = function.sym_name.data
    agents = range(target.cores.count)
    program, stream = SramProgramOp(entry, agents), HbmProgramOp(entry, agents)
    program.location = stream.location = function.location
    core = SramBuilder.of(program)
    ctx = LoweringContext(
        entry, target, memory, memory.geometry, core, HbmBuilder.of(stream, memory.geometry.channels),
        program.body.block, Semaphores(target.cores.semaphores), options,
    )  # fmt: skip
    ctx.at(function)
    lower_inputs(ctx, function, functions)
    _block(ctx, function.body.block, functions)
    returned = function.body.block.last_op
    assert isinstance(returned, func.ReturnOp)
    lower_outputs(ctx, function, returned)
    if not ctx.problems:
        synchronise(program, [stream], ctx.semaphores.reserved)
    return [program, stream], ctx.problems


def _block(ctx: LoweringContext, block: Block, functions: Mapping[str, func.FuncOp]) -> None:
    for op in block.ops:
        ctx.at(op)
        if isinstance(op, scf.ForOp) and is_row_loop(op):
            _row_loop(ctx, op, functions)
        elif isinstance(op, scf.ForOp):
            _layer_loop(ctx, op, functions)
        elif isinstance(op, func.CallOp):
            _call(ctx, op, functions)
        elif not isinstance(op, func.ReturnOp | scf.YieldOp | YieldOp | ArithConstantOp):
            _operation(ctx, op)


def _operation(ctx: LoweringContext, op: Operation) -> None:
    """Lower an operation; one whose form is not supported is noted, and gets results without content."""
    try:
        lowering = choice_of(op, ctx.target).forms.get(type(op)) or LOWERINGS.get(type(op))
        if lowering is None:
            raise ctx.unsupported("has no lowering")
        lowering(ctx, op)
    except UnsupportedFormError as error:
        ctx.problems.append(error.item)
        for result in op.results:
            if isinstance(result.type, TensorType):
                ctx.set(result, placeholder(ctx, result))


def _call(ctx: LoweringContext, op: func.CallOp, functions: Mapping[str, func.FuncOp]) -> None:
    """Lower the body of the callee in place."""
    callee = functions[op.callee.string_value()]
    block = callee.body.block
    for argument, value in zip(block.args, op.arguments, strict=True):
        ctx.rename(argument, value)
    _block(ctx, block, functions)
    returned = block.last_op
    assert isinstance(returned, func.ReturnOp)
    for result, value in zip(op.results, returned.arguments, strict=True):
        ctx.rename(result, value)


def _layer_loop(ctx: LoweringContext, op: scf.ForOp, functions: Mapping[str, func.FuncOp]) -> None:
    """A loop over layers: a loop of the cores and one of the streams; carried tensors stay in one buffer."""
    core = ctx.core
    lower, upper, step = (_constant(ctx, value) for value in (op.lb, op.ub, op.step))
    carried: list[Strip] = []
    for initial, argument in zip(op.iter_args, op.body.block.args[1:], strict=True):
        if shard_of(argument.type) is not None:
            raise ctx.unsupported("the features of a value carried from layer to layer must be together")
        home = ctx.strip("carried", rows_of(argument), widths_of(argument)[0])
        copy(ctx, ctx.tensor(initial).whole, home)
        carried.append(home)
        ctx.set(argument, Tensor((home,)))
    with (
        core.loop(core.const(lower), core.const(upper), step) as layer,
        ctx.stream.loop(len(range(lower, upper, step))),
    ):
        ctx.set(op.body.block.args[0], layer)
        ctx.layer = layer
        stride = ctx.memory.layer_row_stride
        if stride:
            core.hset(core.mul(layer, core.const(stride)), hreg=LAYER_ROW)
        _block(ctx, op.body.block, functions)
        yielded = op.body.block.last_op
        assert isinstance(yielded, scf.YieldOp)
        for value, home in zip(yielded.arguments, carried, strict=True):
            source = ctx.tensor(value).whole
            if source != home:
                copy(ctx, source, home)
        ctx.layer = None
    for result, home in zip(op.results, carried, strict=True):
        ctx.set(result, Tensor((home,)))


def _row_loop(ctx: LoweringContext, op: scf.ForOp, functions: Mapping[str, func.FuncOp]) -> None:
    """A loop over blocks of rows: what it carries is in DRAM and stays where it is."""
    core, body = ctx.core, op.body.block
    lower, upper, step = (_constant(ctx, value) for value in (op.lb, op.ub, op.step))
    for argument, initial in zip(body.args[1:], op.iter_args, strict=True):
        ctx.rename(argument, initial)
    with core.loop(core.const(lower), core.const(upper), step) as first, ctx.own_loads():
        ctx.set(body.args[0], first)
        _block(ctx, body, functions)
    for result, initial in zip(op.results, op.iter_args, strict=True):
        ctx.rename(result, initial)


def _constant(ctx: LoweringContext, value: SSAValue) -> int:
    owner = value.owner
    if not isinstance(owner, ArithConstantOp):
        raise ctx.unsupported("loop bounds must be constants")
    number = owner.value
    if not isinstance(number, IntegerAttr):
        raise ctx.unsupported("loop bounds must be integers")
    return number.value.data


# -- small operations -------------------------------------------------------------------------------------------------


def _param(ctx: LoweringContext, op: nn.ParamOp) -> None:
    """A matrix stays in the banks until it is needed, and so does a bias, of which each core needs a part.

    Other vectors are loaded here (schedule moves them early).
    """
    vector = len(shape_of(op.result)) == 1
    kind = "replicated" if vector else "flat"
    ctx.set(op.result, Weight(op.weight_name.data, shape_of(op.result), layer=op.layer, region=kind))
    if vector and not is_bias(op):
        ctx.tensor(op.result)


def _constant_value(ctx: LoweringContext, op: nn.ConstantOp) -> None:
    """A stored constant stays in the banks until it is needed; a single number is an operand of instructions."""
    size, shape = element_bytes(op.result), shape_of(op.result)
    if is_stored(op.value):
        ctx.set(op.result, Weight(constant_name(op.value), shape, size))
    elif 0 in shape:
        ctx.set(op.result, empty(ctx, shape, size))
    elif size == INTEGER_BYTES and not is_wide(op.result):
        ctx.set(op.result, Integers(ctx.integer(int(op.value.get_values()[0])), 1))
    else:
        ctx.set(op.result, Scalar(float(dense_values(op.value).item())))


def _positions(ctx: LoweringContext, op: nn.PositionsOp) -> None:
    ctx.set(op.result, Positions(ctx.integers(op.position), op.count.value.data))


def _async(ctx: LoweringContext, op: AsyncOp) -> None:
    """Start the GEMVs of the body; their results are fetched where the token is awaited."""
    body = op.body.block
    collects: list[Callable[[], None]] = []
    for inner in body.ops:
        ctx.at(inner)
        if isinstance(inner, GemvOp):
            run = issue_gemv(ctx, inner)
            collects.append(partial(collect_gemv, ctx, run))
        elif isinstance(inner, YieldOp):
            for result, value in zip(op.values, inner.arguments, strict=True):
                ctx.rename(result, value)
        else:
            _operation(ctx, inner)

    def collect() -> None:
        for each in collects:
            each()

    ctx.pending[op.token] = collect


def _await(ctx: LoweringContext, op: AwaitOp) -> None:
    for token in op.tokens:
        collect = ctx.pending.pop(token, None)
        if collect is not None:
            collect()


def _index_arithmetic(ctx: LoweringContext, op: AddiOp | MuliOp) -> None:
    """A sum or product of indices, in a register: the number of a layer in a cache."""
    core, (lhs, rhs) = ctx.core, (ctx.scalar(operand) for operand in op.operands)
    ctx.set(op.result, core.add(lhs, rhs) if isinstance(op, AddiOp) else core.mul(lhs, rhs))


#: How each operation is lowered that no choice of a unit has a lowering for (``choices.py``): on the vector unit, or on
#: none.  Adding an operation is one entry here and one function.
LOWERINGS: dict[type[Operation], Lowering] = {
    AddiOp: cast(Lowering, _index_arithmetic),
    MuliOp: cast(Lowering, _index_arithmetic),
    nn.ParamOp: cast(Lowering, _param),
    nn.PositionsOp: cast(Lowering, _positions),
    nn.RmsNormOp: cast(Lowering, lower_rms_norm),
    nn.LayerNormOp: cast(Lowering, lower_layer_norm),
    nn.RopeOp: cast(Lowering, lower_rope),
    nn.SelectTokenOp: cast(Lowering, lower_select_token),
    nn.GeluOp: cast(Lowering, lower_gelu),
    nn.ConstantOp: cast(Lowering, _constant_value),
    nn.MaxPoolOp: cast(Lowering, lower_max_pool),
    nn.GatherElementsOp: cast(Lowering, lower_gather_elements),
    nn.GatherNdOp: cast(Lowering, lower_gather_nd),
    nn.ScatterElementsOp: cast(Lowering, lower_scatter_elements),
    nn.ScatterNdOp: cast(Lowering, lower_scatter_nd),
    AllGatherOp: cast(Lowering, lower_all_gather),
    AllToAllOp: cast(Lowering, lower_change),
    TakeOp: cast(Lowering, lower_take),
    SpillOp: cast(Lowering, lower_spill),
    FillOp: cast(Lowering, lower_fill),
    EmptyOp: cast(Lowering, lower_empty),
    ReadOp: cast(Lowering, lower_read),
    WriteOp: cast(Lowering, lower_write),
    SelectTokenOp: cast(Lowering, lower_row_of_a_core),
    AsyncOp: cast(Lowering, _async),
    AwaitOp: cast(Lowering, _await),
    **elementwise.TABLE,
    **functions.TABLE,
    **reductions.TABLE,
    **search.TABLE,
    **shape.TABLE,
}
