"""Arrays in and out of ``.npz`` files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pimc.atomic import atomic_path
from pimc.diagnostics import InputError
from pimc.files import reason, regular_file

Array = NDArray[np.generic]


def read_npz(path: str | Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file by name.  Pickled objects are refused.

    Raises:
        InputError: the file is missing, or is not an archive of plain arrays.
    """
    try:
        with np.load(regular_file(path), allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError("is one array, not an archive of named arrays", where=str(path), hint=_HINT)
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise InputError(f"cannot be read: {reason(error)}", where=str(path)) from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"is not a .npz file of arrays ({error})", where=str(path), hint=_HINT) from error


_HINT = "write one with numpy.savez(path, name=array)"


def write_npz(path: str | Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name to an ``.npz`` file, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "xb") as file:
        np.savez(file, allow_pickle=False, **dict(arrays))
