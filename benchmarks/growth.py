"""How the time of compilation grows with the graph: processor seconds of the import and of every pass, by nodes.

python benchmarks/growth.py 1000 2000 4000              a chain of one repeated pattern: outlined to a loop
python benchmarks/growth.py 250 500 1000 --random       a chain without repeats: every operator is lowered
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from pimc.driver.compile import Options, load_source, plan, run_passes
from pimc.driver.pipeline import DEFAULT

OPERATORS = ("Relu", "Sigmoid", "Tanh", "Sin", "Cos", "Abs", "Neg", "Erf")


def chain(length: int, *, repeats: bool) -> onnx.ModelProto:
    """A chain of elementwise nodes."""
    r = random.Random(1)
    names = [OPERATORS[place % 4] if repeats else r.choice(OPERATORS) for place in range(length)]
    nodes = [helper.make_node(name, [f"v{place}"], [f"v{place + 1}"]) for place, name in enumerate(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("v0", f"v{length}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def seconds(path: Path) -> dict[str, float]:
    """Processor seconds of the import and of each pass up to the words of the program."""
    start = time.process_time()
    model = load_source(path, Options())
    found = {"import": time.process_time() - start}
    for name in DEFAULT[:-1]:
        planned = plan(Options(pipeline=name))
        start = time.process_time()
        run_passes(model, planned)
        found[name] = time.process_time() - start
    return found


def main() -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths", type=int, nargs="+", help="nodes of the chains")
    parser.add_argument("--random", action="store_true", help="no repeats")
    arguments = parser.parse_args()
    for length in arguments.lengths:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chain.onnx"
            onnx.save(chain(length, repeats=not arguments.random), path)
            found = seconds(path)
        each = "  ".join(f"{name} {value:.2f}" for name, value in found.items())
        sys.stdout.write(f"{length} nodes: {sum(found.values()):.2f} s  ({each})\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
