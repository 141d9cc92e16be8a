"""``package.module:function`` and ``file.py:function``: Python code that makes the module to compile.

The function takes no arguments and returns ``(module, example_inputs)`` or ``(module, example_inputs, kwargs)``.
Naming it runs the user's code.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from pimc.diagnostics import InputError

if TYPE_CHECKING:
    import torch

_ENTRY: Final = re.compile(r"(?P<place>[^:]+):(?P<name>[A-Za-z_]\w*)")
_CONTRACT: Final = "it must return (module, example_inputs) or (module, example_inputs, keyword_inputs)"


@dataclass(frozen=True)
class Example:
    """A module, and inputs of the shapes and types that it is to be compiled for."""

    module: torch.nn.Module
    inputs: tuple[object, ...]
    kwargs: Mapping[str, object]


def names_code(text: str) -> bool:
    """Whether ``text`` has the form ``package.module:function`` or ``file.py:function``."""
    match = _ENTRY.fullmatch(text)
    place = match["place"] if match else ""
    return place.endswith(".py") or bool(re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", place))


def load_example(text: str) -> Example:
    """Run the function that ``text`` names.

    Raises:
        InputError: no such file, module or function; the code raised; it returned something else.
    """
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise InputError(f"'{text}' is not of the form module:function or file.py:function")
    place, name = match["place"], match["name"]
    module = _guarded(lambda: _load_file(Path(place)) if place.endswith(".py") else _load_module(place), text)
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise InputError(f"{place} has no function '{name}'", hint=f"it has: {known or 'none'}", where=text)
    return _checked(_guarded(function, text), text)


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"there is no Python module '{error.name}'", hint="give the path of a file: path/to/file.py:function"
            ) from error
        raise


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    name = f"pimc_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Classes look their module up by name, and the file may import what lies beside it.
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _guarded(run: Callable[[], object], text: str) -> object:
    """What ``run`` returns; an exception of the user's code as an InputError with its line."""
    try:
        return run()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        raise InputError(f"the code raised {reason} ({place})", where=text) from error


def _checked(result: object, text: str) -> Example:
    import torch

    if not isinstance(result, tuple | list) or len(result) not in (2, 3) or not isinstance(result[0], torch.nn.Module):
        raise InputError(f"the function returned {_described(result)}", hint=_CONTRACT, where=text)
    inputs = result[1]
    kwargs = result[2] if len(result) == 3 else {}
    if isinstance(inputs, Mapping) and len(result) == 2:
        inputs, kwargs = (), inputs
    if isinstance(inputs, torch.Tensor):
        inputs = (inputs,)
    if not isinstance(inputs, Sequence) or not isinstance(kwargs, Mapping):
        problem = "the example inputs are no tuple, or the keyword inputs no dictionary"
        raise InputError(problem, hint=_CONTRACT, where=text)
    return Example(result[0], tuple(inputs), {str(name): value for name, value in kwargs.items()})


def _described(result: object) -> str:
    if isinstance(result, tuple | list):
        return f"a {type(result).__name__} of {', '.join(type(item).__name__ for item in result) or 'nothing'}"
    return f"a {type(result).__name__}"
