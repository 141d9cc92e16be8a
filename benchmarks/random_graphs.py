"""Random graphs of `nn` operators: compiled, run with all checks, and compared with the reference interpreter.

python benchmarks/random_graphs.py --count 2000 --seed 7     exit status 1 if one fails; refused ones are counted
python benchmarks/random_graphs.py --only 12345              one graph, as IR text, and what came of it
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from random_graphs.case import Outcome, attempt, shrunk, text_of
from random_graphs.decoders import attempt_decoder, describe_decoder
from random_graphs.draw import draw

#: One graph in so many is a decoder with caches.
DECODERS = 20
#: Graphs that are shrunk and printed.
SHOWN = 10


def outcome_of(seed: int) -> tuple[int, Outcome]:
    """What came of the graph of a seed."""
    return seed, attempt_decoder(seed) if seed % DECODERS == 0 else attempt(draw(seed))


def outcomes(seeds: range, jobs: int) -> Iterator[tuple[int, Outcome]]:
    """What came of each graph, as they finish."""
    if jobs == 1:
        yield from map(outcome_of, seeds)
        return
    with get_context("spawn").Pool(jobs, maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(outcome_of, seeds, chunksize=4)


def show(seed: int, outcome: Outcome) -> None:
    """Print a failure, as small as it gets."""
    sys.stdout.write(f"\nseed {seed}: {outcome.kind}: {outcome.reason}\n")
    if seed % DECODERS == 0:
        sys.stdout.write(describe_decoder(seed) + "\n")
        return
    graph = shrunk(draw(seed), outcome) if outcome.kind == "failed" else draw(seed)
    sys.stdout.write(text_of(graph) + "\n")


def main() -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="graphs (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first graph (default %(default)s)")
    parser.add_argument("--only", type=int, metavar="SEED", help="one graph: its text and what came of it")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.only is not None:
        show(*outcome_of(arguments.only))
        return 0
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failed: list[tuple[int, Outcome]] = []
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    for done, (seed, outcome) in enumerate(outcomes(seeds, arguments.jobs), 1):
        counts[outcome.kind] += 1
        if outcome.kind == "refused":
            reasons[outcome.reason] += 1
        elif outcome.kind == "failed":
            failed.append((seed, outcome))
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {len(seeds)}: {dict(counts)}")
    for seed, outcome in failed[:SHOWN]:
        show(seed, outcome)
    totals = ", ".join(f"{counts[kind]} {kind}" for kind in ("right", "refused", "failed"))
    sys.stdout.write(f"seeds {seeds.start} to {seeds.stop - 1}: {len(seeds)} graphs, {totals}\n")
    for reason, number in reasons.most_common():
        sys.stdout.write(f"  {number} refused: {reason}\n")
    if failed:
        sys.stdout.write("failed seeds: " + " ".join(str(seed) for seed in sorted(seed for seed, _ in failed)) + "\n")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
