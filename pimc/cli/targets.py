"""``pimc targets``: list the targets, or show one."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping

from pimc.cli import console


def execute(arguments: argparse.Namespace) -> None:
    """List the bundled targets with their descriptions, or print every key of one."""
    from pimc.targets import list_targets, load_target

    if arguments.name is None:
        found = {name: load_target(name).description for name in list_targets()}
        if arguments.json:
            console.write_json({"targets": found})
            return
        for name, description in found.items():
            console.write(f"{name}  {description}\n")
        return
    target = load_target(arguments.name, arguments.overrides)
    content = _plain(target, defaults=arguments.json)
    assert isinstance(content, dict)
    if arguments.json:
        console.write_json({**content, "digest": target.digest})
        return
    for key, value in _leaves(content):
        console.write(f"{key} = {value}\n")
    console.write(f"digest = {target.digest}\n")


def _plain(value: object, *, defaults: bool) -> object:
    """Dataclasses and mappings as dicts, tuples as lists, all the way down; ``defaults``: with the fields that have
    their default, which files leave out.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item, defaults=defaults) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        kept = [(field.name, item) for field, item in fields if defaults or item != field.default]
        return {name: _plain(item, defaults=defaults) for name, item in kept}
    if isinstance(value, tuple | list):
        return [_plain(item, defaults=defaults) for item in value]
    return value


#: What the files (and so ``--set``) call the tables of several elements.
_TABLES = {
    "domains": "domain", "units": "unit", "memories": "memory", "latencies": "latency", "commands": "command",
    "constraints": "constraint",
}  # fmt: skip


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of nested tables as (dotted key as ``--set`` takes it, value); list elements go by their name."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = _TABLES.get(str(key), str(key))
            yield from _leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}.{item.get('name', index)}")
    else:
        yield path, value
