"""The binary that a command runs, as its options say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pimc.runtime import Executable


def load_program(arguments: argparse.Namespace, *, checks: bool = True) -> Executable:
    """The binary of the options on the target of the options.

    Raises:
        InputError: it cannot be loaded, or the target does not fit it.
    """
    from pimc.driver.api import load

    return load(
        arguments.program,
        target=arguments.target_file or arguments.target,
        overrides=arguments.overrides,
        checks=checks,
        strict_numerics=arguments.strict_numerics,
    )
