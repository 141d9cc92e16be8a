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
    content = _plain(target)
    assert isinstance(content, dict)
    if arguments.json:
        console.write_json({**content, "digest": target.digest})
        return
    for key, value in _leaves(content):
        console.write(f"{key} = {value}\n")
    console.write(f"digest = {target.digest}\n")


def _plain(value: object) -> object:
    """Dataclasses and mappings as dicts, tuples as lists, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of nested tables as (dotted key, value); list elements go by their name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}.{item.get('name', index)}")
    else:
        yield path, value
