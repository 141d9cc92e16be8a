"""``link``: check that the emitted streams make one program, and note their sizes on the module.

The program itself (with the memory images, which need the weights) is built by
``pimc.backends.link.link_program``; the command line does that after the last pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import BoolAttr, ModuleOp

from pimc.backends.link import SHARE, code_summary, link_program
from pimc.passes.base import Pass, PassContext

#: Module attribute with the size of every stream.
ATTRIBUTE = "pimc.program"


@dataclass(frozen=True)
class LinkPass(Pass):
    """Check the streams, ports and entries; see :mod:`pimc.backends.link`.

    ``share``: streams of an entry that are equal are stored once.
    """

    name = "link"
    share: bool = True

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        module.attributes[SHARE] = BoolAttr.from_bool(self.share)
        link_program(module, None, context.target)
        module.attributes[ATTRIBUTE] = code_summary(module)
