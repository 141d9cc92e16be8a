"""pimc: a compiler and an instruction-level simulator for processing-in-memory hardware.

The public interface is small and loaded on first use, so that ``import pimc`` costs nothing::

    exe = pimc.compile("path/to/model", target="hpim")
    exe.save("model.pimx")
    exe = pimc.load("model.pimx")
    print(exe.generate("What is the capital of France?", chat=True).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pimc.diagnostics import PimcError as PimcError
    from pimc.driver.api import compile as compile  # the public name
    from pimc.driver.api import load as load
    from pimc.generation import Conversation as Conversation
    from pimc.generation import Generation as Generation
    from pimc.runtime import Executable as Executable
    from pimc.sampling import Sampling as Sampling

__version__ = "0.1.0"
__all__ = ["Conversation", "Executable", "Generation", "PimcError", "Sampling", "__version__", "compile", "load"]

_HOMES = {
    "Conversation": "pimc.generation",
    "Executable": "pimc.runtime",
    "Generation": "pimc.generation",
    "Sampling": "pimc.sampling",
    "PimcError": "pimc.diagnostics",
    "compile": "pimc.driver.api",
    "load": "pimc.driver.api",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pimc' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
