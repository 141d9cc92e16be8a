"""``link``: the emitted streams, their ports and the memory images put together to a program.

The program is no IR: it is left in the context (:attr:`pimc.passes.base.PassContext.program`), and the module stays as
it is.  Without weights, as in ``pimc opt`` and with ``--shapes-only``, the program has no images and
states that; all else is checked alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp

from pimc.backends.link import link_program
from pimc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class LinkPass(Pass):
    """Put streams, ports and memory images together; see :mod:`pimc.backends.link`.

    ``share``: streams of an entry that are equal are stored once.
    """

    name = "link"
    share: bool = True

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        weights = None if context.shapes_only else context.weights
        context.program = link_program(module, weights, context.target, share=self.share)
