"""Views of weights by suffixes of their names."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from pimc.diagnostics import InputError
from pimc.frontends.weights import ModelWeights, absent_array, check_fp16, split_views
from pimc.ir.aliases import add_aliases, with_aliases

W = np.arange(24 * 3, dtype=np.float32).reshape(24, 3)


def store() -> ModelWeights:
    return ModelWeights({"qkv.weight": W, "qkv.bias": W[:, 0]})


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("qkv.weight", W),
        ("qkv.weight^T", W.T),
        ("qkv.weight[2:5]", W[2:5]),
        ("qkv.weight^T[1:3]", W.T[1:3]),
        ("qkv.weight[2:5]^T", W[2:5].T),
        ("qkv.weight[1x2:5]", W[2:5]),
        ("qkv.weight[4x0:2]", W[[0, 1, 6, 7, 12, 13, 18, 19]]),
        ("qkv.weight[2x8:12]", W[[8, 9, 10, 11, 20, 21, 22, 23]]),
        ("qkv.weight[2x4:8][0:4]", W[4:8]),
        ("qkv.weight[2x4:8][2x1:3]", W[[5, 6, 17, 18]]),
        ("qkv.weight^T[3x0:1]", W.T),
        ("qkv.bias[4x5:6]", W[[5, 11, 17, 23], 0]),
        ("qkv.weight[4x3:3]", W[:0]),
    ],
)
def test_views(name: str, wanted: np.ndarray) -> None:
    weights = store()
    assert name in weights
    assert weights.shape(name) == wanted.shape
    np.testing.assert_array_equal(weights[name], wanted)


def test_groups_are_the_parts_of_every_head() -> None:
    """Queries, keys and values of 4 heads one after the other: the three views are a partition of the rows."""
    weights = store()
    parts = np.stack([weights[f"qkv.weight[4x{start}:{start + 2}]"].reshape(4, 2, 3) for start in (0, 2, 4)], axis=1)
    np.testing.assert_array_equal(parts.reshape(24, 3), W)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qkv.weight[0:25]", "rows 0:25 of 1 group"),
        ("qkv.weight[5:2]", "rows 5:2"),
        ("qkv.weight[5x0:2]", "5 group"),
        ("qkv.weight[4x0:7]", "rows 0:7 of 4 group"),
        ("qkv.bias^T", "needs a matrix"),
        ("kv.weight[4x0:2]", "no weight 'kv.weight'"),
    ],
)
def test_views_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = store()[name]


def test_no_groups_are_refused() -> None:
    with pytest.raises(InputError, match="0 group"):
        _ = store()["qkv.weight[0x0:2]"]


def test_names_are_split_from_the_outermost_view() -> None:
    assert split_views("a.b^T[4x0:2][1:2]") == ("a.b", ("^T", "[4x0:2]", "[1:2]"))
    assert split_views("a[x]") == ("a[x]", ())


def test_shapes_of_views_need_no_values() -> None:
    weights = ModelWeights({})
    weights.add("w", absent_array((24, 3)), absent=True)
    module = ModuleOp([])
    add_aliases(module, {"layers.0.w": "w[4x0:2]"})
    named = with_aliases(module, weights)
    assert named.shape("layers.0.w") == (8, 3)
    assert named.shape("layers.0.w^T") == (3, 8)
    assert not weights.has_values("w[4x0:2]^T")
    with pytest.raises(InputError, match="meta device"):
        _ = named["layers.0.w"]
    with pytest.raises(InputError, match="already has a weight"):
        add_aliases(module, {"layers.0.w": "w"})


@pytest.mark.parametrize(("value", "message"), [(7e4, "largest fp16"), (np.inf, "infinity"), (np.nan, "NaN")])
def test_weights_that_fp16_does_not_hold(value: float, message: str) -> None:
    with pytest.raises(InputError, match=f"'w'.*{message}"):
        check_fp16("w", np.array([1.0, value], np.float32))
    check_fp16("w", np.array([65504.0, -65519.0], np.float32))
