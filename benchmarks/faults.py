"""Damage the decode program of a small model in many ways, and account for what each does.

python benchmarks/faults.py                                     all waits and signals, 500 operands, 500 swaps
python benchmarks/faults.py --drops 50 --operands 50 --swaps 50 --seed 7
python benchmarks/faults.py --cross-check 50                    the checker on programs whose results did change

Every damaged program decodes ten tokens, with four sets of weights. It counts as found if it is refused, stops with an
error, gives another result or takes another time. If nothing of that shows, tests/equivalence must prove that it
computes the same for any data and any timing; one it cannot prove is given more tokens, and if they show nothing either
it is unexplained, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from equivalence.mutants import Mutant, Trial, drops, operand_changes, swaps
from hf_models import FAMILIES, build

import pimc

_FAMILY = "llama-gqa-9-3"
_VOCABULARY = 200
_START = 32  # positions decoded before anything is damaged: every core then owns keys and values
_MORE = 100  # runs with each set of weights, of programs that nothing else explains
_TRIALS: dict[str, Trial] = {}  # of a worker process: its one trial


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--drops", type=int, metavar="N", help="waits and signals to drop (default: each one)")
    command.add_argument("--operands", type=int, default=500, metavar="N", help="operand changes (default 500)")
    command.add_argument("--swaps", type=int, default=500, metavar="N", help="exchanged words (default 500)")
    command.add_argument("--positions", type=int, default=10, metavar="N", help="tokens decoded (default 10)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("-j", "--jobs", type=int, default=2, help="processes (default 2)")
    command.add_argument("--cross-check", type=int, default=0, metavar="N", help="see above")
    command.add_argument("-v", "--verbose", action="store_true", help="a line for each damaged program")
    return command


def compile_models(folder: Path) -> list[Path]:
    """Binaries of a small model with SmolLM2's head counts, with sets of weights that show different damage.

    ``flat``: as it is.  ``sharp``: queries that tell keys apart.  ``steep``: scores so far apart that a softmax
    overflows unless it subtracts their very maximum.  ``faint``: activations so small that a norm's epsilon counts.
    """
    family = next(family for family in FAMILIES if family.name == _FAMILY)
    binaries = []
    for name, queries, embedding in (
        ("flat", 1.0, 1.0), ("sharp", 16.0, 1.0), ("steep", 4096.0, 1.0), ("faint", 1.0, 2.0**-9)
    ):  # fmt: skip
        model: Any = build(family, folder / name)
        model.model.embed_tokens.weight.data *= embedding
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.data *= queries
        model.save_pretrained(folder / name)
        binaries.append(folder / f"{name}.pimx")
        pimc.compile(folder / name, max_seq=64, prefill_chunk=8).save(binaries[-1])
    return binaries


def start(binaries: list[Path], positions: int) -> None:
    """Prepare a worker."""
    executables = [pimc.load(binary) for binary in binaries]
    random = np.random.default_rng(9)
    inputs = [
        {"tokens": random.integers(0, _VOCABULARY, (1, 1), np.int32), "position": np.array([position], np.int32)}
        for position in range(_START + positions + 1)
    ]
    more = [inputs.pop()]  # the token behind, which reads what all others left
    more += [inputs[at] | {"tokens": token} for at, token in _more(random, len(inputs))]
    programs = [executable.program for executable in executables]
    _TRIALS["only"] = Trial(programs, executables[0].target, "decode", inputs[:_START], inputs[_START:], more)


def _more(random: np.random.Generator, end: int) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Positions and tokens of the runs that only damage which is otherwise unexplained is given."""
    for position in random.integers(_START, end, _MORE):
        yield int(position), random.integers(0, _VOCABULARY, (1, 1), np.int32)


def try_one(task: tuple[str, Mutant]) -> tuple[str, Mutant, str, str]:
    """Run a mutant in a worker."""
    kind, mutant = task
    return (kind, mutant, *_TRIALS["only"].outcome(mutant))


def contradicted(mutant: Mutant) -> bool:
    """Ask the checker alone, in a worker."""
    return _TRIALS["only"].contradicted(mutant)


def mutants(binary: Path, arguments: argparse.Namespace) -> list[tuple[str, Mutant]]:
    """All damaged programs to try, by kind."""
    program = pimc.load(binary).program
    random = np.random.default_rng(arguments.seed)
    dropped = list(drops(program, "decode"))
    if arguments.drops is not None:
        dropped = [dropped[i] for i in sorted(random.permutation(len(dropped))[: arguments.drops])]
    kinds: dict[str, Iterable[Mutant]] = {
        "dropped": dropped,
        "operand": operand_changes(program, "decode", arguments.operands, random),
        "swap": swaps(program, "decode", arguments.swaps, random),
    }
    return [(kind, mutant) for kind, found in kinds.items() for mutant in found]


def main() -> int:
    """Print the counts; exit status 1 if a damaged program is unexplained."""
    arguments = parser().parse_args()
    console = Console()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    unexplained, changed = [], []
    with tempfile.TemporaryDirectory() as folder:
        binaries = compile_models(Path(folder))
        tasks = mutants(binaries[0], arguments)
        context = multiprocessing.get_context("spawn")
        with (
            context.Pool(arguments.jobs, start, (binaries, arguments.positions)) as pool,
            Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress,
        ):
            bar = progress.add_task("damaged programs", total=len(tasks))
            for kind, mutant, found, details in pool.imap(try_one, tasks):
                counts[kind][found] += 1
                progress.advance(bar)
                if arguments.verbose:
                    console.print(f"{kind}: {mutant.what}: {found}: {details}", markup=False, soft_wrap=True)
                if found == "unexplained":
                    unexplained.append(f"{kind}: {mutant.what}: {details}")
                if found == "changed result":
                    changed.append(mutant)
            sample = list(itertools.islice(changed, arguments.cross_check))
            wrong = sum(pool.map(contradicted, sample))
    outcomes = sorted({name for found in counts.values() for name in found})
    table = Table("outcome", *counts, title=f"seed {arguments.seed}, {arguments.positions} positions")
    for name in outcomes:
        table.add_row(name, *(str(found[name]) for found in counts.values()))
    table.add_row("all", *(str(found.total()) for found in counts.values()))
    console.print(table)
    for line in unexplained:
        console.print(line, markup=False, soft_wrap=True)
    if sample:
        console.print(f"cross-check: {wrong} of {len(sample)} programs with another result were called equivalent")
    return int(bool(unexplained or wrong))


if __name__ == "__main__":
    sys.exit(main())
