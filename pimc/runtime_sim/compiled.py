"""The compiled engine: loaded from where it is kept, else compiled in a child process, which an interrupt ends.

What is compiled is named by a digest of everything that decides it: the sources, the versions of Python, numba,
llvmlite and numpy, numba's settings, the processor, and the mode of the build.  It does not name where the sources are,
so that all environments of a user share one engine.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Final, Generic, ParamSpec, TypeAlias, TypeVar

import llvmlite
import llvmlite.binding
import numba
import numpy as np
from numba.core import config, event, serialize
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.registry import CPUDispatcher, cpu_target
from typing_extensions import override

from pimc.runtime_sim.build_process import compile_in_child
from pimc.runtime_sim.code_store import CodeStore, default_folder
from pimc.runtime_sim.forking import ForkSafeLock

logger: Final = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

#: Told what part of a compilation is done, from 0 to 1; None while another process compiles.
Progress: TypeAlias = Callable[[float | None], None]
#: Files that code is compiled from: a package and a file of it, or None for all its files.
Sources: TypeAlias = tuple[tuple[str, str | None], ...]

ENGINE_SOURCES: Final[Sources] = (
    ("pimc.runtime_sim.engine", None),
    ("pimc.runtime_sim", "dram.py"),
    ("pimc.targets", "dram_spec.py"),
)
#: Environment variables that choose another build of the same sources.
BUILD_MODES: Final = ("PIMC_GUARD",)
#: numba's settings that change the code it makes.
_SETTINGS: Final = (
    "BOUNDSCHECK", "DEBUG_NRT", "DEBUGINFO_DEFAULT", "DISABLE_INTEL_SVML", "ENABLE_AVX", "ENABLE_PROFILING",
    "EXTEND_VARIABLE_LIFETIMES", "JIT_COVERAGE", "LLVM_REFPRUNE_FLAGS", "LLVM_REFPRUNE_PASS", "LOOP_VECTORIZE", "OPT",
    "SLP_VECTORIZE", "USING_SVML",
)  # fmt: skip


def source_digest(sources: Sources) -> str | None:
    """Digest of source files, None where they cannot be read (as in a distribution of bytecode alone)."""
    digest = hashlib.sha256()
    for package, name in sources:
        folder = importlib.resources.files(package)
        files = [folder / name] if name else sorted(folder.iterdir(), key=lambda file: file.name)
        texts = [(file.name, file.read_bytes()) for file in files if file.name.endswith(".py") and file.is_file()]
        if not texts:
            return None
        for text_name, text in texts:
            digest.update(f"{package}/{text_name} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def _surroundings() -> tuple[object, ...]:
    """Everything but the sources that decides what is compiled."""
    return (
        ("python", sys.implementation.cache_tag, sys.version_info[:3], getattr(sys, "abiflags", "")),
        ("libraries", numba.__version__, llvmlite.__version__, llvmlite.binding.llvm_version_info, np.__version__),
        ("processor", cpu_target.target_context.codegen().magic_tuple()),
        ("settings", [(name, str(getattr(config, name, None))) for name in _SETTINGS]),
        ("mode", [(name, os.environ.get(name, "")) for name in BUILD_MODES]),
    )


class _Offer(NullCache):  # type: ignore[misc]  # numba is untyped
    """numba's view of a cache that holds one result, or none."""

    def __init__(self, result: Any = None) -> None:  # noqa: ANN401
        self.result = result

    @override
    def load_overload(self, sig: object, target_context: object) -> Any:
        """The result that is offered."""
        return self.result

    @override
    def save_overload(self, sig: object, cres: object) -> None:
        """Take the result that numba has compiled."""
        self.result = cres


class EntryPoint(Generic[P, R]):
    """A compiled function that Python calls: loaded or compiled when it is first needed, once a process."""

    def __init__(self, dispatcher: Any, arguments: tuple[object, ...], sources: Sources) -> None:  # noqa: ANN401
        """``dispatcher``: numba's; ``arguments``: the numba types it is compiled for; ``sources``: of all it calls."""
        self._dispatcher, self._arguments = dispatcher, arguments
        self._module, self._name = dispatcher.py_func.__module__, dispatcher.py_func.__qualname__
        self._sources = source_digest(sources)  # as they are when they are imported: they may be edited later
        self._ready = False
        self._lock = ForkSafeLock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it; the first call prepares it."""
        if not self._ready:
            self.prepare()
        result: R = self._dispatcher(*args, **kwargs)
        return result

    def key(self) -> str | None:
        """The name of the compiled code that this process needs, None if it cannot be told."""
        if self._sources is None:
            return None
        parts = (self._module, self._name, str(self._arguments), self._sources, *_surroundings())
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def prepare(self, on_progress: Progress | None = None) -> None:
        """Load the compiled function, or compile it (about a minute) and keep it for other processes.

        ``on_progress`` is called only where it has to be compiled, a few times a second.

        Raises:
            InputError: the process that compiles was killed.
        """
        if self._ready:
            return
        with self._lock:
            if not self._ready:
                self._obtain(CodeStore(default_folder()), self.key(), on_progress or _nothing)
                self._dispatcher.disable_compile()
                self._ready = True

    def compile_here(self, on_progress: Callable[[float], None]) -> bytes | None:
        """Compile in this process; returns what :meth:`prepare` keeps, None if the code is good for this one alone."""
        offer = self._dispatcher._cache = _Offer()
        with event.install_listener("numba:compile", _Count(on_progress)):
            self._dispatcher.compile(self._arguments)
        result = offer.result
        if result.library.has_dynamic_globals or result.lifted:
            return None
        code: bytes = serialize.dumps(result._reduce())
        return code

    def _obtain(self, store: CodeStore, key: str | None, on_progress: Progress) -> None:
        """Load it from the store; else compile it, one process at a time, and keep it there."""
        if key is None:
            self.compile_here(on_progress)
        elif not self._load(store.read(key)):
            refusal = store.refusal()
            if refusal is not None:
                logger.warning("the compiled simulator cannot be kept in %s: %s", store.folder, refusal)
                self._build(key, on_progress)
                return
            with store.locked(key, waiting=lambda: on_progress(None)):
                if not self._load(store.read(key)):
                    code = self._build(key, on_progress)
                    _keep(store, key, code)

    def _build(self, key: str, on_progress: Progress) -> bytes | None:
        """Compile and load; returns what can be kept."""
        code = compile_in_child(self._module, self._name, key, on_progress)
        return code if self._load(code) else self.compile_here(on_progress)

    def _load(self, code: bytes | None) -> bool:
        """Use compiled code; False if there is none or it does not fit."""
        if code is None:
            return False
        context = cpu_target.target_context
        context.refresh()
        try:
            result = CompileResult._rebuild(context, *serialize.loads(code))
        except Exception:  # numba's own errors: compile again
            logger.warning("the compiled simulator cannot be loaded and is compiled again", exc_info=True)
            return False
        if tuple(result.signature.args) != self._arguments:
            return False
        self._dispatcher._cache = _Offer(result)
        self._dispatcher.compile(self._arguments)
        return True


class _Count(event.Listener):  # type: ignore[misc]  # numba is untyped
    """Turns numba's events into progress: each function is compiled once, and nearly all that there are."""

    def __init__(self, on_progress: Callable[[float], None]) -> None:
        modules = [module for name, module in list(sys.modules.items()) if name.startswith("pimc.")]
        found = {id(value) for module in modules for value in vars(module).values() if isinstance(value, CPUDispatcher)}
        self._on_progress, self._done, self._total = on_progress, 0, len(found) + 1

    @override
    def on_start(self, event: object) -> None:
        """Nothing is done yet."""

    @override
    def on_end(self, event: object) -> None:
        """One more function is compiled."""
        self._done += 1
        self._on_progress(min(self._done / self._total, 1.0))


def _keep(store: CodeStore, key: str, code: bytes | None) -> None:
    if code is not None:
        try:
            store.keep(key, code)
        except OSError as error:
            logger.warning("the compiled simulator cannot be kept in %s: %s", store.folder, error.strerror)


def _nothing(_done: float | None) -> None:
    """No one watches."""
