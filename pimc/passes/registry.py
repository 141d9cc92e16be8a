"""Finding passes by name, without importing more than is asked for.

Passes come from the packages of pimc (one pass a file, found by reading the sources, not by importing them),
from installed distributions (entry point group ``pimc.passes``: name -> class), and from plugins: Python
files or modules. A name that two of them declare is an error.  Policies are found likewise: in ``pimc.policies``, by
the entry point group ``pimc.policies``, and as instances in plugins.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

from xdsl.passes import ModulePass
from xdsl.utils.hints import type_repr

import pimc
import pimc.policies
from pimc.diagnostics import InternalError, UsageError
from pimc.passes.policy import Policy

PACKAGES = ("passes", "frontends", "backends")
ENTRY_POINTS = "pimc.passes"
POLICY_ENTRY_POINTS = "pimc.policies"


@dataclass(frozen=True)
class PassInfo:
    """A pass for lists: name, first line of the description, options as ``name: type = default``."""

    name: str
    summary: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Declaration:
    """Where a pass is declared: module and class."""

    module: str
    class_name: str


class PassRegistry:
    """Passes by name; ``plugins`` are loaded at once, everything else when it is asked for."""

    def __init__(self, plugins: Sequence[str] = ()) -> None:
        self._loaded: dict[str, type[ModulePass]] = {}
        self._declared: dict[str, Declaration] | None = None
        self._policies: dict[str, Policy] = {}
        for plugin in plugins:
            self.load_plugin(plugin)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._declarations(), *self._entry_points(), *self._loaded})

    def get(self, name: str) -> type[ModulePass]:
        """The class of a pass; UsageError with near names if there is none."""
        if name in self._loaded:
            return self._loaded[name]
        declared = self._declarations().get(name)
        if declared is not None:
            found = _load(declared)
        elif (point := self._entry_points().get(name)) is not None:
            found = point.load()
            if not (inspect.isclass(found) and issubclass(found, ModulePass)):
                raise UsageError(f"entry point {name!r} of {ENTRY_POINTS} is no pass", where=point.value)
        else:
            close = difflib.get_close_matches(name, self.names(), n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"passes: {', '.join(self.names())}"
            raise UsageError(f"no pass {name!r}", hint=hint)
        self._loaded[name] = found
        return found

    def describe(self) -> Iterator[PassInfo]:
        """All passes with their options; imports them."""
        for name in self.names():
            yield describe(self.get(name))

    def load_plugin(self, plugin: str) -> list[type[ModulePass]]:
        """Add the passes and policies of a Python file (``my_pass.py``) or module (``mine.passes``); gives the passes.

        Raises UsageError if it cannot be loaded, has neither, or declares a name that exists.
        """
        module = _import_plugin(plugin)
        policies = [value for value in vars(module).values() if isinstance(value, Policy)]
        for policy in policies:
            if policy.name in self.policy_names():
                raise UsageError(f"there is already a policy {policy.name!r}", hint="rename yours", where=plugin)
            self._policies[policy.name] = policy
        found = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, ModulePass)
            and value.__module__ == module.__name__
            and isinstance(getattr(value, "name", None), str)
            and not inspect.isabstract(value)
        ]
        if not found and not policies:
            hint = "derive a class from pimc.passes.base.Pass, or make a pimc.passes.policy.Policy"
            raise UsageError("the plugin has no pass and no policy", hint=hint, where=plugin)
        for class_ in found:
            if class_.name in self.names():
                raise UsageError(f"there is already a pass {class_.name!r}", hint="rename yours", where=plugin)
            self._loaded[class_.name] = class_
        return found

    def policy_names(self) -> list[str]:
        """The names of all policies, sorted."""
        return sorted({*pimc.policies.names(), *self._policy_entry_points(), *self._policies})

    def policy(self, name: str = pimc.policies.DEFAULT) -> Policy:
        """A policy; UsageError with the names there are if there is none."""
        if name not in self.policy_names():
            close = difflib.get_close_matches(name, self.policy_names(), n=1)
            hint = f"did you mean {close[0]}?" if close else f"policies: {', '.join(self.policy_names())}"
            raise UsageError(f"no policy {name!r}", hint=hint)
        if name not in self._policies:
            point = self._policy_entry_points().get(name)
            module = f"pimc.policies.{name.replace('-', '_')}"
            found = importlib.import_module(module).POLICY if point is None else point.load()
            if not isinstance(found, Policy):
                raise UsageError(f"entry point {name!r} of {POLICY_ENTRY_POINTS} is no policy")
            self._policies[name] = found
        return self._policies[name]

    def policies(self) -> Iterator[Policy]:
        """All policies, by name."""
        return map(self.policy, self.policy_names())

    def _policy_entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=POLICY_ENTRY_POINTS)}

    def _declarations(self) -> dict[str, Declaration]:
        if self._declared is None:
            self._declared = scan()
        return self._declared

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def describe(class_: type[ModulePass]) -> PassInfo:
    """What lists say about a pass."""
    hints = get_type_hints(class_)
    options: list[str] = []
    for option in dataclasses.fields(class_):
        if option.init and option.name != "name":
            default = "" if option.default is dataclasses.MISSING else f" = {_default_text(option.default)}"
            options.append(f"{option.name.replace('_', '-')}: {type_repr(hints[option.name])}{default}")
    summary = (inspect.getdoc(class_) or "").partition("\n")[0]
    return PassInfo(class_.name, summary, tuple(options))


def _default_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_default_text, value)) or "nothing"
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def scan() -> dict[str, Declaration]:
    """Names and places of the passes in pimc's packages, from the sources.  InternalError if a name occurs
    twice.
    """
    found: dict[str, Declaration] = {}
    root = Path(pimc.__path__[0])
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root).with_suffix("")
            parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
            for name, class_name in declared_passes(path.read_text(encoding="utf-8")):
                declaration = Declaration(".".join(("pimc", *parts)), class_name)
                if name in found:
                    other = found[name].module
                    raise InternalError(f"pass {name!r} is declared in {other} and in {declaration.module}")
                found[name] = declaration
    return found


def declared_passes(source: str) -> Iterator[tuple[str, str]]:
    """Pass name and class name of the classes in ``source`` that derive from ...Pass and assign ``name``."""
    if "Pass)" not in source:
        return
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        if not any(ast.unparse(base).endswith("Pass") for base in node.bases):
            continue
        for statement in node.body:
            name = _assigned_name(statement)
            if name is not None:
                yield name, node.name


def _assigned_name(statement: ast.stmt) -> str | None:
    target: ast.expr | None = None
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    if not (isinstance(target, ast.Name) and target.id == "name"):
        return None
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _load(declaration: Declaration) -> type[ModulePass]:
    found = getattr(importlib.import_module(declaration.module), declaration.class_name)
    if not (inspect.isclass(found) and issubclass(found, ModulePass)):
        raise InternalError(f"{declaration.module}.{declaration.class_name} is no pass")
    return found


def _import_plugin(plugin: str) -> ModuleType:
    try:
        if plugin.endswith(".py"):
            return _import_file(Path(plugin))
        return importlib.import_module(plugin)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"cannot load the plugin: {type(error).__name__}: {error}", where=plugin) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError("there is no such plugin file", where=str(path))
    name = f"pimc_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("the plugin is no Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
