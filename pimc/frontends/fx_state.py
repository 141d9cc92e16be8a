"""What an exported program holds besides its graph: its tensors as weights, and the names of its outputs."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pimc.frontends.weights import absent_array
from pimc.ir.constants import LARGEST_HALF
from pimc.ir.weights import WeightArray

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def weight_array(tensor: torch.Tensor) -> WeightArray:
    """A float tensor as numpy, sharing memory if it is float32 or float16; of a tensor on the meta device only the
    shape.
    """
    if tensor.is_meta:
        return absent_array(tuple(tensor.shape))
    plain = tensor.detach()
    if str(plain.dtype) not in ("torch.float32", "torch.float16"):
        plain = plain.float()
    array: WeightArray = plain.cpu().numpy()
    return array


def plain_array(tensor: torch.Tensor) -> NDArray[np.generic]:
    """A tensor as numpy, in a type that numpy has."""
    plain = tensor.detach().cpu()
    array: NDArray[np.generic] = (plain.float() if plain.is_floating_point() else plain).numpy()
    return array


def is_weight(tensor: torch.Tensor, *, named: bool) -> bool:
    """Whether a tensor is kept as a weight, which must fit fp16; others are constants in the IR.

    Those are integers, single numbers, and masks: floats that are no parameter (``named``) and hold infinities or
    numbers that stand for them.
    """
    if not tensor.is_floating_point():
        return False
    if named or tensor.is_meta:
        return bool(tensor.numel() > 1 or tensor.is_meta)
    fits: bool = (tensor.abs() < LARGEST_HALF).all().item()
    return tensor.numel() > 1 and fits


def state_names(program: ExportedProgram) -> dict[str, str]:
    """Path of a tensor in the program -> weight name: tied tensors have the name of the first."""
    names: dict[str, str] = {}
    first: dict[object, str] = {}
    for path, tensor in {**program.state_dict, **program.constants}.items():
        if not hasattr(tensor, "data_ptr"):
            continue
        key = id(tensor) if tensor.is_meta else (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        names[path] = first.setdefault(key if tensor.numel() else path, path)
    return names


def output_names(program: ExportedProgram) -> dict[int, str]:
    """Place in the graph's output -> name, of the outputs that are tensors.

    Names are the path in what the module returns: ``output``, ``output0`` and so on of a tuple, the key of a
    dictionary, ``hidden_states.3`` below those.
    """
    from torch.export.graph_signature import OutputKind, TensorArgument
    from torch.utils import _pytree as pytree

    spec = program.call_spec.out_spec
    users = [i for i, item in enumerate(program.graph_signature.output_specs) if item.kind == OutputKind.USER_OUTPUT]
    leaves = pytree.tree_unflatten(list(range(len(users))), spec)
    names: dict[int, str] = {}
    for path, place in pytree.tree_flatten_with_path(leaves)[0]:
        if isinstance(program.graph_signature.output_specs[users[place]].arg, TensorArgument):
            names[users[place]] = _name(path)
    repeated = {name for name, count in Counter(names.values()).items() if count > 1}
    return {place: f"{name}_{place}" if name in repeated else name for place, name in names.items()}


def _name(path: tuple[object, ...]) -> str:
    parts = [str(next(value for value in _key(step) if value is not None)) for step in path]
    text = ".".join(re.sub(r"\W", "_", part) for part in parts)
    return f"output{text}" if not parts or text[0].isdigit() else text


def _key(step: object) -> list[object]:
    """A step of a pytree path: a key, an index or an attribute."""
    return [getattr(step, attribute, None) for attribute in ("key", "idx", "name")]
