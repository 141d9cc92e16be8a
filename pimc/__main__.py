"""``python -m pimc`` is ``pimc``."""

from pimc.cli.main import entry_point

entry_point()
