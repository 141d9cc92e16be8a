"""``.pt2`` files, as ``torch.export.save`` writes them -> an exported program.

The format is a zip archive: the graph as JSON, tensors as raw bytes.  PyTorch's loader also unpickles objects, loads
shared libraries and evaluates expressions if an archive has any, which runs code of whoever made the file.  Archives
with such parts are refused before PyTorch sees them, and pickled tensors are read by its restricted unpickler.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pimc.diagnostics import InputError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_LIBRARIES: Final = (".so", ".dll", ".dylib", ".o", ".cubin", ".cpp")
_OBJECTS: Final = ("custom_obj", "opaque_obj")
_RESTRICTED: Final = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_HINT: Final = "write it with torch.export.save(torch.export.export(module, inputs), path), of the same PyTorch"
_LARGEST_GRAPH: Final = 1 << 30
"""Bytes of the largest graph that is read."""


def load_pt2(path: Path) -> ExportedProgram:
    """The program in a ``.pt2`` file.

    Raises:
        InputError: the file is damaged, of another version, or has parts that could run code.
    """
    _check_archive(path)
    import torch

    from pimc.frontends.torch_export import quiet_export

    with _restricted_unpickling(), quiet_export():
        try:
            program = torch.export.load(path)
        except Exception as error:  # a damaged file makes the loader fail in many ways
            reason = f"is no exported program that PyTorch reads: {_reason(error)}"
            raise InputError(reason, hint=_HINT, where=str(path)) from error
    _check_targets(program, path)
    return program


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_archive(path: Path) -> None:
    """InputError unless the file is an archive of a graph and plain tensors."""
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith(_LIBRARIES) or "/aotinductor/" in name for name in names):
                raise InputError("the archive holds compiled code, which is not loaded", hint=_HINT, where=where)
            if any(part in name for name in names for part in _OBJECTS):
                raise InputError("the archive holds pickled objects, which could run code", hint=_HINT, where=where)
            graphs = [name for name in names if "models/" in name and name.endswith(".json")]
            if len(graphs) != 1:
                raise InputError(f"the archive holds {len(graphs)} exported programs, not one", hint=_HINT, where=where)
            if archive.getinfo(graphs[0]).file_size > _LARGEST_GRAPH:
                raise InputError("the archive's graph is absurdly large", hint=_HINT, where=where)
            _check_graph(json.loads(archive.read(graphs[0])), where)
            for name in names:
                if name.endswith("_config.json"):
                    _check_payload(json.loads(archive.read(name)), where)
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError, RecursionError) as error:
        raise InputError(f"is no .pt2 archive: {_reason(error)}", hint=_HINT, where=where) from error


def _check_graph(graph: object, where: str) -> None:
    """Symbolic sizes are expressions that the loader evaluates; they are not supported anyway."""
    pending = [graph]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            if item.get("expr_str"):
                raise InputError(
                    "the program has sizes that are not fixed, which PyTorch would read by evaluating text of the file",
                    hint="export it without dynamic_shapes; of a file of your own,"
                    " pimc.compile(torch.export.load(path), shapes={'x': (1, 8)}) fixes them",
                    where=where,
                )
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check_payload(config: object, where: str) -> None:
    """No payload of the constants is a pickled object (tensors may be, under the restricted unpickler)."""
    entries = config.get("config", {}) if isinstance(config, Mapping) else {}
    for entry in entries.values() if isinstance(entries, Mapping) else ():
        path = entry.get("path_name") if isinstance(entry, Mapping) else None
        if not isinstance(path, str) or any(part in path for part in _OBJECTS):
            raise InputError("the archive holds pickled objects, which could run code", hint=_HINT, where=where)


@contextlib.contextmanager
def _restricted_unpickling() -> Iterator[None]:
    """``torch.load`` reads tensors and nothing else, whatever its caller asks for."""
    before = os.environ.get(_RESTRICTED)
    os.environ[_RESTRICTED] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RESTRICTED]
        else:
            os.environ[_RESTRICTED] = before


def _check_targets(program: ExportedProgram, path: Path) -> None:
    """Decomposition runs the graph's operators: they must be PyTorch's own."""
    import operator

    import torch

    for node in program.graph.nodes:
        own = isinstance(node.target, torch._ops.OpOverload) and node.target.namespace in ("aten", "prims")
        if node.op == "call_function" and not own and node.target is not operator.getitem:
            raise InputError(f"the program calls {node.target}, which is no operator of ATen", where=str(path))
        if node.op in ("call_method", "call_module"):
            raise InputError(f"the program has a node of the kind {node.op}", hint=_HINT, where=str(path))
