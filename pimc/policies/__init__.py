"""The policies that come with pimc: a module each, with a :class:`pimc.passes.policy.Policy` named ``POLICY``.

``vector-only`` is in ``vector_only.py``; :class:`pimc.passes.registry.PassRegistry` finds them by name.
"""

from __future__ import annotations

import pkgutil

DEFAULT = "paper"


def names() -> tuple[str, ...]:
    """The names of these policies, sorted."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))
