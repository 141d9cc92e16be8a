"""``canonicalize``: xDSL's canonicalisation patterns and folding, with locations handed on."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp
from xdsl.pattern_rewriter import GreedyRewritePatternApplier, PatternRewriteWalker
from xdsl.transforms.canonicalize import CanonicalizationRewritePattern
from xdsl.transforms.dead_code_elimination import region_dce

from pimc.ir.locations import LocatedPattern
from pimc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class CanonicalizePass(Pass):
    """Simplify: canonicalisation patterns, constant folding, dead code."""

    name = "canonicalize"

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        """Apply the patterns greedily."""
        greedy = GreedyRewritePatternApplier([CanonicalizationRewritePattern()], ctx=context.ir, folding_enabled=True)
        PatternRewriteWalker(LocatedPattern(greedy), post_walk_func=region_dce).rewrite_module(module)
