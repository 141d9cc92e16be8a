"""``link``: check that the emitted streams make one program, and note their sizes on the module.

The program itself (with the memory images, which need the weights) is built by
``pimc.backends.link.link_program``; the command line does that after the last pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp

from pimc.backends.link import code_summary, link_program
from pimc.passes.base import Pass, PassContext

#: Module attribute with the size of every stream.
ATTRIBUTE = "pimc.program"


@dataclass(frozen=True)
class LinkPass(Pass):
    """Check the streams, ports and entries; see :mod:`pimc.backends.link`."""

    name = "link"

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        link_program(module, None, context.target)
        module.attributes[ATTRIBUTE] = code_summary(module)
