"""Graphs that are no language model: any rank, several inputs and outputs, the model's own types and names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from graphs import RNG, compare, executable, floats, ids, module_of, number, weight
from xdsl.dialects.builtin import f32, i1, i64
from xdsl.ir import SSAValue

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.isa.container import load_program, write_program
from pimc.isa.program import strip
from pimc.runtime import Executable

ONE_CORE = ("cores.count=1", "hbm.stacks=1", "hbm.channels=2", "noc.columns=1", "noc.rows=1")


def test_types_ranks_and_outputs() -> None:
    scalar, wide, flags = np.array(2.5, np.float32), ids(-(10**9), 10**9, 3, 2), np.array([True, False, True])
    arrays = [scalar, wide, flags, floats(2, 3, 4, 5)]
    result = compare(arrays, lambda s, w, b, x: [x, s, w, b, nn.ExpOp(x).result, w, s])
    kinds = [(array.dtype.name, array.shape) for array in result.outputs.values()]
    assert kinds[1:4] == [("float32", ()), ("int64", (3, 2)), ("bool", (3,))]


def test_constants_and_weights_of_any_rank() -> None:
    w, v = floats(2, 3, 4), floats(4)
    table = nn.ConstantOp.from_array
    compare(
        [floats(2, 3, 4)],
        lambda x: [
            nn.AddOp(nn.MulOp(x, weight("w", w)), weight("w", w)).result,
            table(np.arange(-3, 3).reshape(2, 3) * 70001, i64).result,
            table(np.array([True, False]), i1).result,
            table(np.array([np.inf, -np.inf, 1.5]), f32).result,
            table(np.array(7), i64).result,
            number(1.25),
            weight("v", v),
        ],
        {"w": w, "v": v},
    )


def test_an_input_without_elements() -> None:
    result = compare([np.zeros((0, 4), np.float32), floats(2)], lambda e, x: [e, x])
    assert [array.size for array in result.outputs.values()] == [0, 2]


def test_names_of_the_model(tmp_path: Path) -> None:
    module = module_of([floats(2), floats(2)], lambda a, b: [nn.AddOp(a, b).result], ["x:0", "x/0"])
    compiled = executable(module)
    a, b = floats(2), floats(2)
    got = compiled.run({"x:0": a, "x/0": b}).outputs["output0"]
    np.testing.assert_allclose(got, a + b, rtol=2e-3, atol=2e-3)
    write_program(tmp_path / "bare.pimx", strip(compiled.program))  # without metadata: the ports' names and types
    bare = Executable(load_program(tmp_path / "bare.pimx"), compiled.target)
    assert [port.name for port in bare.program.entries["main"].inputs] == ["x_0", "x_0_1"]
    same = bare.run({"x_0": a, "x_0_1": b}).outputs["output0"]
    assert same.dtype == np.float16
    np.testing.assert_array_equal(same, got)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([1.0, 70000.0], np.float32), r"fp16.*element \[1\] is 70000.0"),
        (np.array([[1.0, 2.0]], np.float32), "shape"),
        (np.array(["a", "b"]), "the model takes f32"),
    ],
)
def test_inputs_that_the_hardware_cannot_hold(value: np.ndarray, message: str) -> None:
    compiled = executable(module_of([floats(2)], lambda x: [x]))
    with pytest.raises(InputError, match=message):
        compiled.run(value)


def test_integers_beyond_32_bits() -> None:
    compiled = executable(module_of([ids(0, 9, 2)], lambda x: [x]))
    with pytest.raises(InputError, match="32-bit integers: element \\[1\\] is 4294967296"):
        compiled.run(np.array([1, 2**32]))


def test_not_a_number_and_infinity_pass() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    (got,) = executable(module_of([x], lambda v: [v])).run(x).outputs.values()
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 5), (5, 4)), ((1, 7), (7, 1)), ((2, 1, 3, 4), (5, 4, 2)), ((70, 130), (130, 90)), ((3, 0), (0, 2))],
)
def test_product_of_computed_tensors(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    compare([floats(*a), floats(*b)], lambda x, y: [nn.MatmulOp(x, y).result], tolerance=2e-2)


@pytest.mark.parametrize(("a", "b"), [((3, 5), (5, 4)), ((2, 1, 3, 4), (5, 4, 2)), ((1, 1), (1, 1))])
def test_product_of_integers(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    compare([ids(-30000, 30000, *a), ids(-3000, 3000, *b)], lambda x, y: [nn.MatmulOp(x, y).result])


@pytest.mark.parametrize(("shape", "outputs"), [((5,), 3), ((3, 18), 7), ((2, 3, 4, 20), 33), ((1, 1, 18), 1)])
def test_linear_of_any_rank(shape: tuple[int, ...], outputs: int) -> None:
    w, b = floats(outputs, shape[-1]), floats(outputs)
    compare(
        [floats(*shape)],
        lambda x: [nn.LinearOp(x, weight("w", w), weight("b", b)).result],
        {"w": w, "b": b},
        tolerance=1e-2,
    )


def test_linear_with_a_long_input() -> None:
    w = floats(40, 4096) / 64
    compare([floats(4, 4096)], lambda x: [nn.LinearOp(x, weight("w", w)).result], {"w": w}, tolerance=1e-2)


def test_matrix_on_the_right_becomes_a_linear_layer() -> None:
    w = floats(12, 8)
    result = compare([floats(2, 3, 12)], lambda x: [nn.MatmulOp(x, weight("w", w)).result], {"w": w}, tolerance=1e-2)
    assert result.cycles < 1000


def test_lookups_in_a_stored_table() -> None:
    table = floats(1000, 24)
    compare(
        [ids(-1000, 1000, 2, 3), ids(0, 1000, 2, 3)],
        lambda i, j: [
            nn.GatherOp(weight("t", table), i, 0).result,
            nn.EmbeddingOp(weight("t", table), j).result,
        ],
        {"t": table},
    )


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "queries", "keys", "mask", "causal"),
    [
        (12, 12, 32, 16, 16, None, False),
        (4, 2, 8, 5, 7, (1, 1, 1, 7), False),
        (3, 3, 16, 70, 66, (1, 3, 70, 66), False),
        (40, 40, 4, 9, 9, (9, 9), True),
        (1, 1, 16, 1, 3, None, False),
    ],
)
def test_attention_without_a_cache(
    heads: int, kv_heads: int, dim: int, queries: int, keys: int, mask: tuple[int, ...] | None, causal: bool
) -> None:
    arrays = [floats(1, queries, heads * dim), floats(1, keys, kv_heads * dim), floats(1, keys, kv_heads * dim)]
    if mask is not None:
        arrays.append(2 * floats(*mask))
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "scale": dim**-0.5}
    compare(
        arrays,
        lambda q, k, v, m=None: [nn.AttentionFullOp(q, k, v, m, **sizes, causal=causal).result],
        tolerance=1e-2,
    )


@pytest.mark.parametrize("overrides", [(), ONE_CORE], ids=["32 cores", "one core"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "queries", "keys", "mask", "causal"),
    [
        (1, 1, 150, 33, None, False),
        (2, 1, 66, 21, (1, 2, 66, 21), False),
        (3, 1, 50, 30, (1, 1, 1, 30), False),
        (3, 3, 5, 9, (1, 3, 5, 1), False),
        (2, 2, 70, 70, None, True),
        (6, 2, 20, 31, (31,), True),
        (70, 1, 3, 11, None, True),
    ],
)
def test_attention_without_a_cache_in_blocks(
    heads: int,
    kv_heads: int,
    queries: int,
    keys: int,
    mask: tuple[int, ...] | None,
    causal: bool,
    overrides: tuple[str, ...],
) -> None:
    """Blocks of at most four keys, and of as many query rows as fill the tensor unit."""
    dim = 8
    arrays = [3 * floats(1, queries, heads * dim), *(floats(1, keys, kv_heads * dim) for _ in "kv")]
    if mask is not None:
        hidden = np.where(RNG.random(mask) < 0.4, np.float32(-60000), 0)
        hidden[..., 0] = 0  # every query sees a key
        arrays.append(hidden)
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "scale": dim**-0.5}
    compare(
        arrays,
        lambda q, k, v, m=None: [nn.AttentionFullOp(q, k, v, m, **sizes, causal=causal).result],
        tolerance=1e-2,
        overrides=overrides,
        pipeline="...,tile{key_share=1},...",
    )


@pytest.mark.parametrize(
    "overrides", [(), ("cores.count=8", "hbm.stacks=1", "noc.columns=2"), ONE_CORE], ids=["32", "8", "1"]
)
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "queries", "keys", "mask"),
    [
        (4, 3, 3, 40, 25, None),
        (3, 5, 5, 7, 19, (3, 1, 1, 19)),
        (2, 6, 2, 33, 17, (2, 6, 33, 17)),
        (70, 1, 1, 2, 3, (70, 1, 2, 3)),
    ],
)
def test_attention_of_several_sequences(
    batch: int,
    heads: int,
    kv_heads: int,
    queries: int,
    keys: int,
    mask: tuple[int, ...] | None,
    overrides: tuple[str, ...],
) -> None:
    """Cores with fewer heads, sequences or rows than others, and cores with none; keys in several blocks."""
    dim = 8
    arrays = [3 * floats(batch, queries, heads * dim), *(floats(batch, keys, kv_heads * dim) for _ in "kv")]
    if mask is not None:
        arrays.append(2 * floats(*mask))
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "scale": dim**-0.5}
    compare(
        arrays,
        lambda q, k, v, m=None: [nn.AttentionFullOp(q, k, v, m, **sizes).result],
        tolerance=1e-2,
        overrides=overrides,
        pipeline="...,tile{key_share=1},...",
    )


@pytest.mark.parametrize("overrides", [(), ONE_CORE], ids=["32 cores", "one core"])
@pytest.mark.parametrize(("queries", "keys"), [(70, 33), (9, 20), (1, 5)])
def test_attention_with_a_bias_by_difference(queries: int, keys: int, overrides: tuple[str, ...]) -> None:
    """Query rows that no core has in full: 70 rows in blocks of 5."""
    arrays = [floats(1, queries, 24), floats(1, keys, 24), floats(1, keys, 24), floats(1, 3, 1, queries + keys - 1)]
    sizes = {"heads": 3, "kv_heads": 3, "head_dim": 8, "scale": 0.4, "relative": True}
    compare(
        arrays,
        lambda q, k, v, m: [nn.AttentionFullOp(q, k, v, m, **sizes).result],
        tolerance=1e-2,
        overrides=overrides,
    )


def test_attention_in_blocks_is_one_program_for_any_length() -> None:
    """As many instructions for 150 queries and 70 keys as for 250 and 190; buffers for keys do not grow."""
    counts = set()
    for queries, keys in ((150, 70), (250, 190)):
        arrays = [floats(1, queries, 8), floats(1, keys, 8), floats(1, keys, 8)]
        sizes = {"heads": 1, "kv_heads": 1, "head_dim": 8, "scale": 1.0}
        module = module_of(arrays, lambda q, k, v, sizes=sizes: [nn.AttentionFullOp(q, k, v, **sizes).result])
        program = executable(module, None, ONE_CORE, "...,tile{key_share=1},...").program
        counts.add(sum(len(code) for code in program.code.values()))
    assert len(counts) == 1


def encoder(x: SSAValue, w: Mapping[str, np.ndarray], heads: int, kv_heads: int, dim: int) -> list[SSAValue]:
    """A layer of an encoder: attention and a feed-forward network, each added to its input."""
    linear = {name: (weight(name, w[name]), weight(f"{name}.bias", w[f"{name}.bias"])) for name in "qkvofg"}
    q, k, v = (nn.LinearOp(x, *linear[name]).result for name in "qkv")
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "scale": dim**-0.5}
    mixed = nn.LinearOp(nn.AttentionFullOp(q, k, v, **sizes).result, *linear["o"])
    hidden = nn.LayerNormOp(nn.AddOp(x, mixed), weight("norm", w["norm"]), weight("norm.bias", w["norm.bias"]), 1e-5)
    inner = nn.GeluOp(nn.LinearOp(hidden, *linear["f"]), "none")
    return [nn.AddOp(hidden, nn.LinearOp(inner, *linear["g"])).result]


@pytest.mark.parametrize(
    ("tokens", "heads", "kv_heads", "dim", "inner"),
    [
        (16, 3, 3, 16, 100),
        (5, 4, 2, 8, 64),  # heads of fewer features than cores
        pytest.param(128, 12, 12, 32, 1536, marks=pytest.mark.slow),  # the hidden layer is larger than a core's memory
    ],
)
def test_encoder_layer(tokens: int, heads: int, kv_heads: int, dim: int, inner: int) -> None:
    width = heads * dim
    shapes = {"q": (width, width), "k": (kv_heads * dim, width), "v": (kv_heads * dim, width), "o": (width, width)}
    shapes |= {"f": (inner, width), "g": (width, inner)}
    w = {name: floats(*shape) / np.sqrt(np.float32(shape[1])) for name, shape in shapes.items()}
    w |= {f"{name}.bias": floats(shape[0]) / 10 for name, shape in shapes.items()}
    w |= {"norm": floats(width), "norm.bias": floats(width)}
    compare([floats(1, tokens, width)], lambda x: encoder(x, w, heads, kv_heads, dim), w, tolerance=2e-2)
