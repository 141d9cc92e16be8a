"""Further names of weights: the module attribute ``pim.aliases`` (name -> weight), so that they travel with a dump.

``outline`` gives weights whose names say nothing of layers (an ONNX exporter's ``val_68``) names that count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr
from xdsl.ir import Operation

from pimc.diagnostics import InputError
from pimc.ir.weights import WeightArray, WeightStore, split_views

ATTRIBUTE = "pim.aliases"


def aliases_of(module: Operation) -> dict[str, str]:
    """The aliases that a module states, name -> weight (or a view of one)."""
    attribute = module.attributes.get(ATTRIBUTE)
    data = attribute.data if isinstance(attribute, DictionaryAttr) else {}
    return {name: target.data for name, target in data.items() if isinstance(target, StringAttr)}


def add_aliases(module: ModuleOp, aliases: Mapping[str, str]) -> None:
    """State further aliases; InputError where one is the name of something else already."""
    if not aliases:
        return
    known = aliases_of(module)
    for name, target in aliases.items():
        if known.setdefault(name, target) != target:
            raise InputError(f"the model already has a weight {name!r}")
    module.attributes[ATTRIBUTE] = DictionaryAttr({name: StringAttr(target) for name, target in known.items()})


def with_aliases(module: Operation, store: WeightStore) -> WeightStore:
    """The weights under the names that ``module`` gives them as well."""
    aliases = aliases_of(module)
    return _AliasedWeights(store, aliases) if aliases else store


class _AliasedWeights:
    """A :class:`WeightStore` with further names."""

    def __init__(self, store: WeightStore, aliases: Mapping[str, str]) -> None:
        self._store = store
        self._aliases = aliases

    def _name(self, name: str) -> str:
        """The name in the store; view suffixes behind an alias are views of what it stands for."""
        base, views = split_views(name)
        return name if base not in self._aliases else self._aliases[base] + "".join(views)

    def __getitem__(self, name: str) -> WeightArray:
        return self._store[self._name(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._name(name) in self._store

    def names(self) -> Iterator[str]:
        """All names, sorted."""
        return iter(sorted({*self._store.names(), *self._aliases}))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight."""
        return self._store.shape(self._name(name))

    def digest(self, name: str) -> str:
        """SHA-256 (hex) of element type, shape and values of a weight."""
        return self._store.digest(self._name(name))
