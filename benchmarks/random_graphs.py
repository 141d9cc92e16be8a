"""Random graphs of `nn` operators: compiled, run with all checks, and compared with the reference interpreter.

python benchmarks/random_graphs.py --count 2000 --seed 7     exit status 1 if one fails; refused ones are counted
python benchmarks/random_graphs.py --machines --count 300    whole programs on random machines: 1 to 64 cores, 1 to 4
                                                             channels each, 64 KB to 1 MB of activation memory
python benchmarks/random_graphs.py --only 12345              one graph, as IR text, and what came of it
With --record FILE what came of each seed is kept there, and seeds that it has are not tried again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from random_graphs.case import Graph, Outcome, attempt, shrunk, text_of
from random_graphs.decoders import attempt_decoder, describe_decoder
from random_graphs.draw import draw
from random_graphs.machines import draw_program

#: One graph in so many is a decoder with caches.
DECODERS = 20
#: Graphs that are shrunk and printed.
SHOWN = 10


def outcome_of(seed: int, *, machines: bool) -> tuple[int, Outcome]:
    """What came of the graph of a seed."""
    if machines:
        return seed, draw_program(seed).attempt()
    return seed, attempt_decoder(seed) if seed % DECODERS == 0 else attempt(draw(seed))


def outcomes(seeds: list[int], jobs: int, *, machines: bool) -> Iterator[tuple[int, Outcome]]:
    """What came of each graph, as they finish."""
    function = partial(outcome_of, machines=machines)
    if jobs == 1:
        yield from map(function, seeds)
        return
    with get_context("spawn").Pool(jobs, maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(function, seeds, chunksize=4)


def show(seed: int, outcome: Outcome, *, machines: bool) -> None:
    """Print a failure, as small as it gets."""
    sys.stdout.write(f"\nseed {seed}: {outcome.kind}: {outcome.reason}\n")
    graph: Graph | None
    overrides: tuple[str, ...] = ()
    if machines:
        program = draw_program(seed)
        graph, overrides = program.graph, program.machine.overrides
        sys.stdout.write(program.describe() + "\n")
    elif seed % DECODERS == 0:
        graph = None
        sys.stdout.write(describe_decoder(seed) + "\n")
    else:
        graph = draw(seed)
    if graph is not None:
        sys.stdout.write(text_of(shrunk(graph, outcome, overrides) if outcome.kind == "failed" else graph) + "\n")


def recorded(path: Path | None) -> dict[int, Outcome]:
    """What came of the seeds that a record has."""
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    return {line["seed"]: Outcome(line["kind"], line["reason"]) for line in map(json.loads, lines)}


def tried(arguments: argparse.Namespace) -> dict[int, Outcome]:
    """What came of each seed: of those that the record lacks, by trying, and then the record has them."""
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    found = {seed: outcome for seed, outcome in recorded(arguments.record).items() if seed in seeds}
    left = [seed for seed in seeds if seed not in found]
    for seed, outcome in outcomes(left, arguments.jobs, machines=arguments.machines):
        found[seed] = outcome
        if arguments.record is not None:
            with arguments.record.open("a", encoding="utf-8") as record:
                record.write(json.dumps({"seed": seed, "kind": outcome.kind, "reason": outcome.reason}) + "\n")
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(found)} of {len(seeds)}: {dict(Counter(each.kind for each in found.values()))}")
    return found


def main() -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="graphs (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first graph (default %(default)s)")
    parser.add_argument("--machines", action="store_true", help="whole programs, each on a machine of its own")
    parser.add_argument("--record", type=Path, metavar="FILE", help="lines of JSON, one for each seed that was tried")
    parser.add_argument("--only", type=int, metavar="SEED", help="one graph: its text and what came of it")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.only is not None:
        show(*outcome_of(arguments.only, machines=arguments.machines), machines=arguments.machines)
        return 0
    found = tried(arguments)
    failed = sorted((seed, outcome) for seed, outcome in found.items() if outcome.kind == "failed")
    for seed, outcome in failed[:SHOWN]:
        show(seed, outcome, machines=arguments.machines)
    counts = Counter(outcome.kind for outcome in found.values())
    totals = ", ".join(f"{counts[kind]} {kind}" for kind in ("right", "refused", "failed"))
    sys.stdout.write(f"seeds from {arguments.seed}: {len(found)} graphs, {totals}\n")
    reasons = Counter(re.sub(r"\d+", "N", each.reason) for each in found.values() if each.kind == "refused")
    for reason, number in reasons.most_common():
        sys.stdout.write(f"  {number} refused: {reason}\n")
    if failed:
        sys.stdout.write("failed seeds: " + " ".join(str(seed) for seed, _ in failed) + "\n")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
