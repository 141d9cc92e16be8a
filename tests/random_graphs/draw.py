"""The random graph of a seed."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from random_graphs import elementwise, indexing, layout, products, rows
from random_graphs.case import Graph, Shape
from random_graphs.drawing import ELEMENTS_AT_MOST, SIZES, Drawing, Rule

#: Results that are larger leave what fp16 holds well; such graphs are drawn again.
LARGEST = 256.0
RULES: dict[Rule, int] = {**elementwise.RULES, **products.RULES, **rows.RULES, **layout.RULES, **indexing.RULES}


def draw(seed: int, sizes: Shape = SIZES, elements: int = ELEMENTS_AT_MOST) -> Graph:
    """The graph of a seed; its dimensions are of these sizes, and its tensors have at most so many elements."""

    def fill(d: Drawing) -> None:
        for rule in d.random.choices(list(RULES), list(RULES.values()), k=d.random.randrange(1, 9)):
            rule(d)

    return drawn(random.Random(seed), fill, sizes, elements)


def drawn(r: random.Random, fill: Rule, sizes: Shape = SIZES, elements: int = ELEMENTS_AT_MOST) -> Graph:
    """What ``fill`` adds to a drawing, drawn again until it has results, and ones that fp16 holds well."""
    while True:
        d = Drawing(r, sizes=sizes, elements=elements)
        fill(d)
        made = [index for index, step in enumerate(d.steps) if step.make is not None and step.operands]
        if not made:
            continue
        outputs = {made[-1], *(r.sample(made, min(len(made), r.choice((0, 0, 1, 2)))))}
        graph = Graph(tuple(d.steps), tuple(sorted(outputs)))
        every = replace(graph, outputs=tuple(graph.needed())).interpreted()
        if all(np.all(np.abs(array.astype(np.float64)) <= LARGEST) for array in every):
            return graph
