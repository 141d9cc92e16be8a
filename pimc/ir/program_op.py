"""What ``sram.program`` and ``hbm.program`` share: one text of an entry for some agents (cores, or groups)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Self

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Block, Region
from xdsl.irdl import IRDLOperation, prop_def, region_def, traits_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove, NoTerminator
from xdsl.utils.exceptions import VerifyException

from pimc.ir.instruction_ops import numbers, numbers_attribute, parse_number, print_number


def parse_block(parser: Parser) -> Region:
    """A region of one block, also where its text is empty."""
    region = parser.parse_region()
    if not region.blocks:
        region.add_block(Block())
    return region


class AgentProgramOp(IRDLOperation):
    """Base of the program operations; ``AGENTS`` names the property that holds the agents' numbers."""

    AGENTS: ClassVar[str]

    entry = prop_def(StringAttr)
    body = region_def("single_block")

    traits = traits_def(NoTerminator(), IsolatedFromAbove())

    def __init__(self, entry: str, agents: Iterable[int], body: Region | None = None) -> None:
        region = Region(Block()) if body is None else body
        properties = {"entry": StringAttr(entry), self.AGENTS: numbers_attribute(agents)}
        super().__init__(properties=properties, regions=[region])

    @property
    def agents(self) -> tuple[int, ...]:
        """Numbers of the agents that run the text."""
        return numbers(self.properties[self.AGENTS])

    def check_agents(self) -> None:
        """VerifyException unless the agents are distinct, not negative, and at least one."""
        agents = self.agents
        if not agents or len(set(agents)) != len(agents) or min(agents) < 0:
            raise VerifyException(f"{self.name}: {self.AGENTS} must be distinct and not empty")

    def print(self, printer: Printer) -> None:
        """Print ``"entry" cores = [..] { ... }``."""
        printer.print_string(" ")
        printer.print_string_literal(self.entry.data)
        printer.print_string(f" {self.AGENTS} = ")
        print_number(printer, self.properties[self.AGENTS])
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_empty_block=False)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        """Parse what :meth:`print` prints."""
        entry = parser.parse_str_literal()
        parser.parse_keyword(cls.AGENTS)
        parser.parse_punctuation("=")
        agents = numbers(parse_number(parser))
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = cls(entry, agents, parse_block(parser))
        if attributes is not None:
            op.attributes |= attributes.data
        return op
