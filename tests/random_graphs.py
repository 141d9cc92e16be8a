"""Random graphs of `nn` operators, compiled and run with all checks, beside the reference interpreter.

A graph is a list of steps, so that one that fails can be shrunk: to fewer outputs, and with inputs in the place of
steps.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from graphs import executable, module_of
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.ir import SSAValue

from pimc.diagnostics import TargetError, UnsupportedModelError
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.context import print_module
from pimc.ir.interpreter import Interpreter

Array = NDArray[np.generic]
Shape = tuple[int, ...]
Make = Callable[..., SSAValue]

#: Results that are larger leave what fp16 holds well; such graphs are drawn again.
LARGEST = 256.0
#: Of the largest magnitude of a result (at least 1): the bound on its difference from the interpreter in fp32, and how
#: often the interpreter's own difference between fp16 and fp32 is allowed on top.
RELATIVE, ROUNDING = 1 / 64, 4.0
_DTYPES = {"f": np.float32, "i": np.int64, "b": np.bool_}


@dataclass(frozen=True)
class Value:
    """A value of the graph: its shape, the kind of its elements (f, i, b), and whether rounding has not touched it."""

    shape: Shape
    kind: str = "f"
    exact: bool = False


@dataclass(frozen=True)
class Step:
    """How a value is made from earlier ones; an input or weight has an array in the place of operands."""

    name: str
    value: Value
    operands: tuple[int, ...] = ()
    make: Make | None = None
    array: Array | None = None

    @property
    def is_input(self) -> bool:
        return self.name == "input"


@dataclass(frozen=True)
class Graph:
    """Steps in order, and the values that are returned."""

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def needed(self) -> list[int]:
        """The steps that the outputs need, in order; inputs stay as they are."""
        seen: set[int] = set()
        left = list(self.outputs)
        while left:
            index = left.pop()
            if index not in seen:
                seen.add(index)
                left.extend(self.steps[index].operands)
        return sorted(seen)

    def inputs(self) -> list[int]:
        return [index for index in self.needed() if self.steps[index].is_input]

    def module(self) -> ModuleOp:
        """@main with the needed steps."""
        inputs = self.inputs()

        def build(*arguments: SSAValue) -> list[SSAValue]:
            values = dict(zip(inputs, arguments, strict=True))
            for index in self.needed():
                step = self.steps[index]
                if index in values:
                    continue
                if step.make is None:
                    assert step.array is not None  # a weight
                    values[index] = nn.ParamOp(f"w.{index}.w", TensorType(f32, step.value.shape)).result
                else:
                    values[index] = step.make(*(values[operand] for operand in step.operands))
            return [values[index] for index in self.outputs]

        return module_of([self._array(index) for index in inputs], build)

    def weights(self) -> dict[str, Array]:
        return {
            f"w.{index}.w": self._array(index)
            for index in self.needed()
            if self.steps[index].make is None and not self.steps[index].is_input
        }

    def arrays(self) -> list[Array]:
        return [self._array(index) for index in self.inputs()]

    def _array(self, index: int) -> Array:
        array = self.steps[index].array
        assert array is not None  # an input or a weight
        return array

    def interpreted(self, precision: str = "f32") -> list[Array]:
        """What the reference gives."""
        interpreter = Interpreter(self.module(), ModelWeights(self.weights()), precision=precision)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            named = {f"arg{place}": array for place, array in enumerate(self.arrays())}
            return list(interpreter.call("main", named).values())


# -- drawing ----------------------------------------------------------------------------------------------------------

UNARY = (nn.TanhOp, nn.SigmoidOp, nn.SinOp, nn.CosOp, nn.AbsOp, nn.NegOp, nn.ReluOp, nn.SiluOp, nn.ErfOp, nn.AtanOp)
EXACT_UNARY = (nn.FloorOp, nn.CeilOp, nn.RoundOp, nn.SignOp)
BINARY = (nn.AddOp, nn.SubOp, nn.MulOp, nn.MaximumOp, nn.MinimumOp)
INTEGER_BINARY = (nn.AddOp, nn.SubOp, nn.MulOp, nn.MaximumOp, nn.MinimumOp)
REDUCTIONS = (nn.ReduceSumOp, nn.ReduceMeanOp, nn.ReduceMaxOp, nn.ReduceMinOp)
PREDICATES = ("eq", "ne", "lt", "le", "gt", "ge")


@dataclass
class Drawing:
    """A graph being drawn."""

    random: random.Random
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def op(self, name: str, value: Value, operands: Sequence[int], make: Make) -> int:
        return self.add(Step(name, value, tuple(operands), make))

    def source(self, shape: Shape, kind: str = "f", *, weight: bool | None = None, scale: float = 1.0) -> int:
        """An input, or (of floats) a weight; values are fp16 numbers."""
        rng = np.random.default_rng(self.random.getrandbits(32))
        if kind == "f":
            array: Array = (rng.standard_normal(shape) * scale).astype(np.float16).astype(np.float32)
        elif kind == "i":
            array = rng.integers(-9, 9, shape)
        else:
            array = rng.random(shape) < 0.5
        stored = kind == "f" and (self.random.random() < 0.4 if weight is None else weight)
        return self.add(Step("weight" if stored else "input", Value(shape, kind, True), array=array))

    def shape(self, rank: int | None = None) -> Shape:
        sizes = (1, 1, 2, 3, 4, 5, 8, 16, 18, 32, 33)
        drawn = tuple(
            self.random.choice(sizes) for _ in range(self.random.choice((1, 2, 2, 3)) if rank is None else rank)
        )
        return drawn if np.prod(drawn) <= 1024 else drawn[1:]

    def pick(self, test: Callable[[Value], bool]) -> int | None:
        """A value that passes, later ones more often."""
        found = [index for index, step in enumerate(self.steps) if test(step.value)]
        return self.random.choice(found[-6:] if self.random.random() < 0.7 else found) if found else None

    def floats(self, least_rank: int = 1) -> int:
        found = self.pick(lambda value: value.kind == "f" and len(value.shape) >= least_rank)
        return self.source(self.shape(max(least_rank, 2))) if found is None else found

    def value(self, index: int) -> Value:
        return self.steps[index].value


Rule = Callable[[Drawing], object]


def unary(d: Drawing) -> None:
    x = d.floats()
    kinds = UNARY + EXACT_UNARY if d.value(x).exact else UNARY
    op = d.random.choice(kinds)
    d.op(op.name, Value(d.value(x).shape), [x], lambda v: op(v).result)


def binary(d: Drawing) -> None:
    x = d.floats()
    shape = d.value(x).shape
    other = d.pick(lambda value: value.kind == "f" and value.shape == shape)
    if other is None or d.random.random() < 0.4:
        other = d.source(tuple(size if d.random.random() < 0.6 else 1 for size in shape))
    op = d.random.choice(BINARY)
    operands = [x, other] if d.random.random() < 0.5 else [other, x]
    d.op(op.name, Value(shape), operands, lambda a, b: op(a, b).result)


def number(d: Drawing) -> None:
    x = d.floats()
    constant, op = d.random.choice((0.5, 2.0, -1.0, 0.25)), d.random.choice((nn.AddOp, nn.MulOp, nn.DivOp))
    d.op(
        f"{op.name} {constant}", Value(d.value(x).shape), [x],
        lambda v: op(v, nn.ConstantOp.from_array(np.float64(constant), f32).result).result,
    )  # fmt: skip


def linear(d: Drawing) -> None:
    x = d.floats()
    inner, outer = d.value(x).shape[-1], d.random.choice((1, 3, 16, 32, 40, 64))
    weight = d.source((outer, inner), weight=True, scale=inner**-0.5)
    bias = [d.source((outer,), weight=True)] if d.random.random() < 0.5 else []
    shape = (*d.value(x).shape[:-1], outer)
    d.op("nn.linear", Value(shape), [x, weight, *bias], lambda *v: nn.LinearOp(*v).result)


def layers(d: Drawing) -> None:
    """The same few operators again and again, with weights of their own: outlined to a loop."""
    x = d.source((d.random.choice((1, 1, 4)), d.random.choice((16, 32, 33))))
    width = d.value(x).shape[-1]
    ops = [d.random.choice(UNARY) for _ in range(d.random.randrange(1, 4))]
    twice = d.random.random() < 0.3
    for _ in range(d.random.randrange(2, 5)):
        y = x
        for _ in range(2 if twice else 1):
            weight = d.source((width, width), weight=True, scale=width**-0.5)
            y = d.op("nn.linear", Value(d.value(x).shape), [y, weight], lambda a, b: nn.LinearOp(a, b).result)
            for op in ops:
                y = d.op(op.name, Value(d.value(x).shape), [y], lambda v, op=op: op(v).result)
        x = d.op("nn.add", Value(d.value(x).shape), [x, y], lambda a, b: nn.AddOp(a, b).result)


def recurrence(d: Drawing) -> None:
    """A state from a stored vector, stepped with one matrix."""
    batch, width = d.random.choice((1, 1, 4)), d.random.choice((8, 32))
    state, weight = d.source((batch, width)), d.source((2 * width, width), weight=True, scale=width**-0.5)
    x = d.source((d.random.randrange(2, 4), batch, 2 * width))
    for time in range(d.value(x).shape[0]):
        at = d.op(
            "nn.slice", Value((1, batch, 2 * width)), [x],
            lambda v, t=time: nn.SliceOp(v, [t, 0, 0], [t + 1, batch, 2 * width], [1, 1, 1]).result,
        )  # fmt: skip
        row = d.op("nn.reshape", Value((batch, 2 * width)), [at], lambda v: nn.ReshapeOp(v, (batch, 2 * width)).result)
        total = d.op(
            "nn.linear+", Value((batch, 2 * width)), [row, state, weight],
            lambda r, s, w: nn.AddOp(r, nn.LinearOp(s, w)).result,
        )  # fmt: skip
        gates = [
            d.op(
                "nn.slice", Value((batch, width)), [total],
                lambda v, p=part: nn.SliceOp(v, [0, p * width], [batch, (p + 1) * width], [1, 1]).result,
            )
            for part in range(2)
        ]  # fmt: skip
        state = d.op(
            "gate", Value((batch, width)), [*gates, state],
            lambda a, b, s: nn.AddOp(nn.MulOp(nn.SigmoidOp(a), nn.TanhOp(b)), nn.MulOp(nn.SigmoidOp(b), s)).result,
        )  # fmt: skip


def attention(d: Drawing) -> None:
    heads, dim, tokens = d.random.choice((1, 2, 4, 3)), d.random.choice((4, 8, 16)), d.random.choice((1, 2, 5, 9))
    shared = d.random.choice([n for n in (1, 2, 3, 4) if heads % n == 0])
    width = heads * dim
    x = d.source((1, tokens, width))
    parts = []
    for features in (width, width // shared, width // shared):
        weight = d.source((features, width), weight=True, scale=width**-0.5)
        parts.append(
            d.op("nn.linear", Value((1, tokens, features)), [x, weight], lambda a, b: nn.LinearOp(a, b).result)
            if d.random.random() < 0.8
            else d.source((1, tokens, features))
        )
    causal = d.random.random() < 0.5
    d.op(
        "nn.attention_full", Value((1, tokens, width)), parts,
        lambda q, k, v: nn.AttentionFullOp(
            q, k, v, None, heads=heads, kv_heads=heads // shared, head_dim=dim, scale=dim**-0.5, causal=causal
        ).result,
    )  # fmt: skip


def norm(d: Drawing) -> None:
    x = d.floats()
    features = d.value(x).shape[-1]
    weight = d.source((features,), weight=True)
    if d.random.random() < 0.5:
        d.op("nn.rms_norm", Value(d.value(x).shape), [x, weight], lambda v, w: nn.RmsNormOp(v, w, 1e-2).result)
    else:
        bias = d.source((features,), weight=True)
        d.op(
            "nn.layer_norm", Value(d.value(x).shape), [x, weight, bias],
            lambda v, w, b: nn.LayerNormOp(v, w, b, 1e-2).result,
        )  # fmt: skip


def softmax(d: Drawing) -> None:
    x = d.floats()
    axis = d.random.randrange(len(d.value(x).shape))
    d.op("nn.softmax", Value(d.value(x).shape), [x], lambda v: nn.SoftmaxOp(v, axis).result)


def product(d: Drawing) -> None:
    x = d.floats(2)
    *lead, rows, inner = d.value(x).shape
    other = d.source((inner, d.random.choice((1, 3, 8, 20))), scale=max(inner, 1) ** -0.5)
    shape = (*lead, rows, d.value(other).shape[-1])
    d.op("nn.matmul", Value(shape), [x, other], lambda a, b: nn.MatmulOp(a, b).result)


def transpose(d: Drawing) -> None:
    x = d.floats(2)
    shape = d.value(x).shape
    order = d.random.sample(range(len(shape)), len(shape))
    value = Value(tuple(shape[place] for place in order), exact=d.value(x).exact)
    d.op("nn.transpose", value, [x], lambda v: nn.TransposeOp(v, order).result)


def slice_(d: Drawing) -> None:
    x = d.floats()
    shape = d.value(x).shape
    starts = [d.random.randrange(size) for size in shape]
    stops = [d.random.randrange(start, size) + 1 for start, size in zip(starts, shape, strict=True)]
    steps = [d.random.choice((1, 1, 2)) for _ in shape]
    found = tuple(len(range(*bounds)) for bounds in zip(starts, stops, steps, strict=True))
    d.op("nn.slice", Value(found, exact=d.value(x).exact), [x], lambda v: nn.SliceOp(v, starts, stops, steps).result)


def reshape(d: Drawing) -> None:
    x = d.floats()
    count = int(np.prod(d.value(x).shape))
    factors = [n for n in (1, 2, 3, 4, 8) if count % n == 0]
    first = d.random.choice(factors)
    shape = d.random.choice([(count,), (first, count // first), (count // first, first), (1, count)])
    d.op("nn.reshape", Value(shape, exact=d.value(x).exact), [x], lambda v: nn.ReshapeOp(v, shape).result)


def concat(d: Drawing) -> None:
    x = d.floats()
    shape = d.value(x).shape
    axis = d.random.randrange(len(shape))
    other = d.source(tuple(d.random.choice((1, 2, 5)) if place == axis else n for place, n in enumerate(shape)))
    joined = list(shape)
    joined[axis] += d.value(other).shape[axis]
    operands = [x, other] if d.random.random() < 0.5 else [other, x]
    d.op("nn.concat", Value(tuple(joined)), operands, lambda *v: nn.ConcatOp(list(v), axis).result)


def pad(d: Drawing) -> None:
    x = d.floats()
    shape = d.value(x).shape
    low, high = [d.random.randrange(3) for _ in shape], [d.random.randrange(3) for _ in shape]
    padded = tuple(a + size + b for a, size, b in zip(low, shape, high, strict=True))
    d.op("nn.pad", Value(padded), [x], lambda v: nn.PadOp(v, low, high, value=0.5).result)


def reduce(d: Drawing) -> None:
    x = d.floats(2)
    shape, op = d.value(x).shape, d.random.choice(REDUCTIONS)
    axis, keep = d.random.randrange(len(shape)), d.random.random() < 0.5
    kept = [1] if keep else []
    found = (*shape[:axis], *kept, *shape[axis + 1 :])
    d.op(op.name, Value(found), [x], lambda v: op(v, [axis], keep).result)


def running_sum(d: Drawing) -> None:
    x = d.floats()
    axis, reverse = d.random.randrange(len(d.value(x).shape)), d.random.random() < 0.5
    d.op("nn.cum_sum", Value(d.value(x).shape), [x], lambda v: nn.CumSumOp(v, axis, reverse=reverse).result)


def select(d: Drawing) -> None:
    x = d.floats()
    shape, predicate = d.value(x).shape, d.random.choice(PREDICATES)
    other = d.source(shape)
    if d.random.random() < 0.5:
        condition = d.source(shape, "b")
    else:  # of numbers that no rounding touches
        left, right = d.source(shape, "i"), d.source(shape, "i")
        condition = d.op(
            "nn.compare", Value(shape, "b", True), [left, right], lambda a, b: nn.CompareOp(a, b, predicate).result
        )
    d.op("nn.select", Value(shape), [condition, x, other], lambda c, a, b: nn.SelectOp(c, a, b).result)


def gather(d: Drawing) -> None:
    x = d.floats()
    shape = d.value(x).shape
    axis = d.random.randrange(len(shape))
    rng = np.random.default_rng(d.random.getrandbits(32))
    places = rng.integers(-shape[axis], shape[axis], d.random.randrange(1, 5))
    indices = d.add(Step("input", Value(places.shape, "i", True), array=places))
    found = (*shape[:axis], *places.shape, *shape[axis + 1 :])
    d.op("nn.gather", Value(found, exact=d.value(x).exact), [x, indices], lambda v, i: nn.GatherOp(v, i, axis).result)


def integers(d: Drawing) -> None:
    x = d.pick(lambda value: value.kind == "i" and value.exact) or d.source(d.shape(), "i")
    if d.value(x).kind != "i":
        x = d.source(d.shape(), "i")
    op, other = d.random.choice(INTEGER_BINARY), d.source(d.value(x).shape, "i")
    made = d.op(op.name, Value(d.value(x).shape, "i"), [x, other], lambda a, b: op(a, b).result)
    if d.random.random() < 0.6:
        d.op("nn.cast", Value(d.value(x).shape), [made], lambda v: nn.CastOp(v, f32).result)


RULES: tuple[tuple[Rule, int], ...] = (
    (unary, 5), (binary, 5), (number, 2), (linear, 6), (layers, 2), (recurrence, 1), (attention, 1), (norm, 2),
    (softmax, 1), (product, 2), (transpose, 2), (slice_, 2), (reshape, 2), (concat, 1), (pad, 1), (reduce, 2),
    (running_sum, 1), (select, 1), (gather, 1), (integers, 1),
)  # fmt: skip


def draw(seed: int) -> Graph:
    """The graph of a seed; one with results that fp16 holds well."""
    r = random.Random(seed)
    while True:
        d = Drawing(r)
        rules, weights = zip(*RULES, strict=True)
        for rule in r.choices(rules, weights, k=r.randrange(1, 9)):
            rule(d)
        made = [index for index, step in enumerate(d.steps) if step.make is not None]
        outputs = {made[-1], *(r.sample(made, min(len(made), r.choice((0, 0, 1, 2)))))}
        graph = Graph(tuple(d.steps), tuple(sorted(outputs)))
        if all(np.all(np.abs(array.astype(np.float64)) <= LARGEST) for array in _every_value(graph)):
            return graph


def _every_value(graph: Graph) -> list[Array]:
    return replace(graph, outputs=tuple(graph.needed())).interpreted()


# -- trying -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of a graph: "right", "refused" (by the compiler, with a reason), or "failed"."""

    kind: str
    reason: str = ""


def attempt(graph: Graph) -> Outcome:
    """Compile the graph, run it with all checks, and compare it with the reference."""
    exact, rounded = graph.interpreted(), graph.interpreted("f16")
    try:
        compiled = executable(graph.module(), graph.weights())
        results = compiled.run(*graph.arrays()).outputs
    except UnsupportedModelError as error:
        return Outcome("refused", str(error).splitlines()[0])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        refused = isinstance(error, TargetError) and "does not fit" in str(error)
        return Outcome("refused" if refused else "failed", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    for index, (got, want, near) in enumerate(zip(results.values(), exact, rounded, strict=True)):
        difference = _difference(got, want, near)
        if difference is not None:
            return Outcome("failed", f"output {index} of shape {want.shape} is wrong: {difference}")
    return Outcome("right")


def _difference(got: Array, want: Array, near: Array) -> str | None:
    if got.shape != want.shape:
        return f"its shape is {got.shape}"
    if want.dtype.kind in "iub":
        return None if np.array_equal(got, want) else f"{int(np.sum(got != want))} of {want.size} elements differ"
    if want.size == 0:
        return None
    wide = want.astype(np.float64)
    bound = RELATIVE * max(1.0, float(np.abs(wide).max())) + ROUNDING * float(
        np.abs(near.astype(np.float64) - wide).max()
    )
    error = float(np.max(np.abs(got.astype(np.float64) - wide)))
    return None if error <= bound else f"by {error:.4g}, the bound is {bound:.4g}"


def shrunk(graph: Graph, outcome: Outcome) -> Graph:
    """A smaller graph that fails alike: fewer outputs, inputs in the place of steps."""
    kind = outcome.reason.split(":")[0].split(" ")[0]
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(graph):
            found = attempt(candidate)
            if found.kind == outcome.kind and found.reason.split(":")[0].split(" ")[0] == kind:
                graph, smaller = candidate, True
                break
    return graph


def _smaller(graph: Graph) -> Iterator[Graph]:
    needed = graph.needed()
    if len(graph.outputs) > 1:
        for output in graph.outputs:
            yield replace(graph, outputs=(output,))
    for index in needed[:-1]:
        if graph.steps[index].make is not None:
            yield replace(graph, outputs=(index,))
    values = dict(zip(needed, replace(graph, outputs=tuple(needed)).interpreted(), strict=True))
    for index in reversed(needed):
        step = graph.steps[index]
        if step.make is not None and index not in graph.outputs:
            array = values[index].astype(_DTYPES[step.value.kind])
            given = Step("input", step.value, array=array)
            yield replace(graph, steps=(*graph.steps[:index], given, *graph.steps[index + 1 :]))


def text_of(graph: Graph) -> str:
    """The graph as IR text."""
    return print_module(graph.module())


__all__ = ["Graph", "Outcome", "attempt", "draw", "shrunk", "text_of"]
