"""Weight stores, digests and family names."""

from __future__ import annotations

import numpy as np
import pytest

from pimc.diagnostics import InputError
from pimc.ir.weights import FamilyName, InMemoryWeights, WeightStore, array_digest, store_digest


def test_family_names() -> None:
    family = FamilyName("model.layers.*.mlp.up.weight")
    assert family.is_family
    assert family.member(12) == "model.layers.12.mlp.up.weight"
    assert family.index_of("model.layers.3.mlp.up.weight") == 3
    assert family.index_of("model.layers.x.mlp.up.weight") is None
    names = ["model.layers.10.mlp.up.weight", "model.layers.2.mlp.up.weight", "lm_head"]
    assert list(family.members(names)) == [2, 10]
    assert FamilyName.of("model.layers.7.a", "model.layers.") == FamilyName("model.layers.*.a")
    assert FamilyName.of("model.norm", "model.layers.") == FamilyName("model.norm")
    assert FamilyName("model.norm").member(3) == "model.norm"
    with pytest.raises(InputError, match="more than one"):
        FamilyName("a.*.b.*")


def test_store() -> None:
    store = InMemoryWeights({"b": np.ones((2, 3)), "a": np.zeros(4, np.float16)})
    assert isinstance(store, WeightStore)
    assert list(store.names()) == ["a", "b"]
    assert store["b"].dtype == np.float32
    assert store["a"].dtype == np.float16
    assert store.shape("b") == (2, 3)
    assert "a" in store
    assert "c" not in store
    with pytest.raises(InputError, match="no weight 'bb'") as info:
        _ = store["bb"]
    assert info.value.hint == "did you mean b?"
    with pytest.raises(InputError, match="is no number"):
        InMemoryWeights({"x": np.array(["s"])})


def test_digests_depend_on_type_shape_and_values() -> None:
    a = np.arange(6, dtype=np.float32)
    variants = [a, a.reshape(2, 3), a.astype(np.float16), a + 1]
    assert len({array_digest(v) for v in variants}) == 4
    assert array_digest(a) == array_digest(a.astype(">f4"))
    stores = [InMemoryWeights({"a": v}) for v in variants]
    assert len({store_digest(s) for s in stores}) == 4
    assert store_digest(stores[0]) == store_digest(InMemoryWeights({"a": a.copy()}))
