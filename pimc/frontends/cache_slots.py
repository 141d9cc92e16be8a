"""The cache of a layer as the exporters trace it: buffers of all slots, which the model writes at positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers.cache_utils import CacheLayerMixin


def slots_class() -> type[CacheLayerMixin]:
    """The class ``Slots(keys, values, positions, filled)``; local because `transformers` is imported late.

    It writes keys and values ``[1, heads, slots, head_dim]`` at ``positions`` (None: it is only read) and returns all
    slots; ``filled``: how many a model is told to be filled already.
    """
    from transformers.cache_utils import CacheLayerMixin

    class Slots(CacheLayerMixin):  # type: ignore[misc]
        """The cache of one layer."""

        is_sliding = False

        def __init__(
            self,
            keys: torch.Tensor,
            values: torch.Tensor,
            positions: torch.Tensor | None,
            filled: int | torch.Tensor,
        ) -> None:
            super().__init__()
            self.keys, self.values, self.positions, self.filled = keys, values, positions, filled
            self.is_initialized = True

        def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
            """Nothing: the buffers exist."""

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
        ) -> tuple[torch.Tensor, torch.Tensor]:
            keys = self.keys.index_copy_(2, self.positions, key_states)
            return keys, self.values.index_copy_(2, self.positions, value_states)

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return int(self.keys.shape[2]), 0

        def get_seq_length(self) -> int | torch.Tensor:
            return self.filled

        def get_max_length(self) -> int:
            return int(self.keys.shape[2])

    found: type[CacheLayerMixin] = Slots
    return found
