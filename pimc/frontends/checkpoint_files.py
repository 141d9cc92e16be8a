"""The weights in a Hugging Face folder, by name: one file or shards, safetensors or PyTorch's own, read when asked for.

A safetensors checkpoint is never in memory as a whole.  PyTorch's files are mapped where they are of the format since
PyTorch 1.6.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pimc.diagnostics import InputError
from pimc.frontends.fx_state import weight_array
from pimc.frontends.model import Checkpoint
from pimc.frontends.weight_file import list_tensors
from pimc.ir.weights import WeightArray

if TYPE_CHECKING:
    import torch

_SAFETENSORS, _PYTORCH = "model.safetensors", "pytorch_model.bin"
_HINT: Final = "the folder needs config.json and model.safetensors or pytorch_model.bin; without weights: --shapes-only"


@dataclass(frozen=True)
class StoredWeight:
    """A tensor of a checkpoint: its shape, and its values when they are asked for."""

    shape: tuple[int, ...]
    read: Callable[[], WeightArray]


def stored_weights(folder: Path) -> dict[str, StoredWeight]:
    """All tensors of the checkpoint in a folder, by name.

    Raises:
        InputError: there is none, it is damaged, or a shard is missing.
    """
    for name, reader in ((_SAFETENSORS, _of_safetensors), (_PYTORCH, _of_pytorch)):
        if (folder / name).is_file():
            return dict(reader(folder / name))
        if (folder / f"{name}.index.json").is_file():
            shards = _shards(folder / f"{name}.index.json")
            return {key: stored for shard in shards for key, stored in reader(shard)}
    raise InputError("the model cannot be loaded: the folder has no weights", hint=_HINT, where=str(folder))


def _shards(index: Path) -> list[Path]:
    """The files that an index names, which are there and beside it."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in places.values()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"the index of the checkpoint cannot be read: {error}", where=str(index)) from error
    for name in names:
        if Path(name).name != name:
            raise InputError(f"the index names {name[:80]!r}, which is no file beside it", where=str(index))
        if not (index.parent / name).is_file():
            raise InputError(
                f"the checkpoint lacks its part {name!r}", hint="download or copy the folder again", where=str(index)
            )
    return [index.parent / name for name in names]


def _of_safetensors(path: Path) -> Iterator[tuple[str, StoredWeight]]:
    for name, tensor in list_tensors(path)[0].items():
        yield name, StoredWeight(tensor.shape, tensor.read)


def _of_pytorch(path: Path) -> Iterator[tuple[str, StoredWeight]]:
    for name, tensor in _load(path).items():
        if hasattr(tensor, "untyped_storage"):
            yield name, StoredWeight(tuple(tensor.shape), partial(weight_array, tensor))


def _load(path: Path) -> Mapping[str, torch.Tensor]:
    import pickle
    import zipfile

    import torch

    try:
        mapped = zipfile.is_zipfile(path)  # the older format cannot be mapped
        state: object = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"the model cannot be loaded: {reason}", hint=_HINT, where=str(path)) from error
    if not isinstance(state, dict):
        raise InputError("the model cannot be loaded: the file holds no tensors by name", hint=_HINT, where=str(path))
    return state


def readers_of(
    model: torch.nn.Module, stored: Mapping[str, StoredWeight], where: str
) -> dict[str, Callable[[], WeightArray]]:
    """Parameter name -> its values, for every parameter of a model of `transformers`; buffers that a checkpoint holds
    are set.

    A checkpoint may have names that the library renames, those of the model without its head, and any of the names of a
    tied weight.

    Raises:
        InputError: a weight is missing or has another shape, or tied ones differ.
    """
    stored = _renamed(model, stored)
    prefix = f"{model.base_model_prefix}."
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    readers: dict[str, Callable[[], WeightArray]] = {}
    missing: list[str] = []
    for tied in names.values():
        found = [key for name in tied if (key := _stored_name(name, prefix, stored)) is not None]
        if not found:
            missing.append(tied[0])
            continue
        _check_tied(found, stored, where)
        _check_shape(found[0], stored[found[0]].shape, tuple(model.get_parameter(tied[0]).shape), where)
        readers[tied[0]] = stored[found[0]].read
    if missing:
        raise InputError(f"the checkpoint lacks {len(missing)} weight(s), the first is {min(missing)!r}", where=where)
    _set_buffers(model, prefix, stored, where)
    return readers


def with_values(checkpoint: Checkpoint) -> torch.nn.Module:
    """The PyTorch model with its weights in memory, to compute with."""
    import torch

    model = checkpoint.model
    for name, read in (checkpoint.readers or {}).items():
        parameter = model.get_parameter(name)
        parameter.data = torch.from_numpy(np.array(read(), np.float32))
    return model


def _renamed(model: torch.nn.Module, stored: Mapping[str, StoredWeight]) -> dict[str, StoredWeight]:
    """The tensors under the names that the library gives them today (GPT-NeoX had another one for its head)."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    rules = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    found: dict[str, StoredWeight] = {}
    for stored_name, value in stored.items():
        name = stored_name
        for rule in rules:
            name = rule.rename_source_key(name)[0]
        found[name] = value
    return found


def _stored_name(name: str, prefix: str, stored: Iterable[str]) -> str | None:
    """The name that a checkpoint has for a parameter: with its head, without, or of the part without one."""
    return next((key for key in (name, name.removeprefix(prefix), prefix + name) if key in stored), None)


def _check_tied(names: list[str], stored: Mapping[str, StoredWeight], where: str) -> None:
    for name in names[1:]:
        if not np.array_equal(stored[names[0]].read(), stored[name].read()):
            raise InputError(
                f"the configuration ties {name!r} to {names[0]!r}, and the checkpoint has other values",
                hint='config.json of such a model says "tie_word_embeddings": false',
                where=where,
            )


def _check_shape(name: str, have: tuple[int, ...], expected: tuple[int, ...], where: str) -> None:
    if have != expected:
        raise InputError(f"weight {name!r} must have the shape {expected} and has {have}", where=where)


def _set_buffers(model: torch.nn.Module, prefix: str, stored: Mapping[str, StoredWeight], where: str) -> None:
    import torch

    kept = set(model.state_dict())
    for name, buffer in model.named_buffers():
        key = _stored_name(name, prefix, stored) if name in kept else None
        if key is not None:
            _check_shape(key, stored[key].shape, tuple(buffer.shape), where)
            buffer.copy_(torch.from_numpy(np.array(stored[key].read())))
