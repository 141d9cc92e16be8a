"""docs/models.md: what the field's large models take on the machine, and what compiling them takes.

    python benchmarks/models.py --results DIR [--models opt-30b,llama-3-8b] [--write | --table]

Every model in benchmarks/models/ (the figures of its published config.json) is compiled without weights (`pimc compile
--shapes-only`) at ``--max-seq 2048`` and at its own maximum, and timed (`pimc run --timing-only`): a prefill of 512
tokens, decode at positions 128, 512, 1024 and the last.  A job is a process, and its result a file in DIR: what is
there already is not run again, so that it can be stopped, and taken up by the same command.  A job that fails has the
error's first line in the table.  Results are those of one commit: take a new folder for another.  ``--table`` runs
nothing and prints the page of what is there, ``--write`` puts it into docs/models.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from jobs import Result, kept, measure, read

HERE: Final = Path(__file__).resolve().parent
PAGE: Final = HERE.parent / "docs" / "models.md"
COMMAND: Final = "python benchmarks/models.py --results DIR --write"
MODELS: Final = (
    "opt-350m", "opt-1.3b", "opt-6.7b", "opt-13b", "opt-30b", "llama-2-7b", "llama-2-13b", "llama-3-8b", "qwen2.5-14b",
    "mistral-7b", "gemma-2-9b",
)  # fmt: skip
COMMON_LENGTH: Final = 2048
PROMPT: Final = 512
POSITIONS: Final = (128, 512, 1024)


@dataclass(frozen=True)
class Job:
    """One process: ``kind`` is compile, prefill, or decode at ``position``."""

    model: str
    max_seq: int
    kind: str
    position: int = 0

    @property
    def name(self) -> str:
        """The name of its result's file."""
        return f"{self.kind}-{self.position}" if self.kind == "decode" else self.kind

    def __str__(self) -> str:
        return f"{self.model} at --max-seq {self.max_seq}: {self.name.replace('-', ' at ')}"


def config_of(model: str, configs: Path) -> Mapping[str, Any]:
    """The configuration of a model."""
    found: Mapping[str, Any] = json.loads((configs / f"{model}.json").read_text(encoding="utf-8"))
    return found


def lengths(model: str, configs: Path) -> list[int]:
    """The ``--max-seq`` of a model: the common one, and its own maximum."""
    longest = int(config_of(model, configs)["max_position_embeddings"])
    return sorted({min(COMMON_LENGTH, longest), longest})


def jobs(models: Sequence[str], configs: Path) -> Iterator[Job]:
    """All jobs, in order: what runs a binary comes after what makes it."""
    for model in models:
        for length in lengths(model, configs):
            yield Job(model, length, "compile")
            if length >= PROMPT:
                yield Job(model, length, "prefill")
            for position in sorted({*(p for p in POSITIONS if p < length - 1), length - 1}):
                yield Job(model, length, "decode", position)


class Bench:
    """Runs jobs in a folder, which keeps their results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.configs: Path = arguments.configs

    def folder(self, job: Job) -> Path:
        """Where the binary and the results of a model at one length are."""
        return Path(self.arguments.results) / f"{job.model}-{job.max_seq}"

    def result(self, job: Job) -> Result | None:
        """What a job has left; None where it has not run."""
        return read(self.folder(job) / f"{job.name}.json")

    def run(self, job: Job) -> Result:
        """The result of a job, which is run if it has not been."""
        return kept(self.folder(job) / f"{job.name}.json", lambda: self._made(job))

    def _made(self, job: Job) -> Result:
        made = Job(job.model, job.max_seq, "compile")
        if job.kind != "compile" and "error" in (self.result(made) or {}):
            return {"error": "not compiled"}
        return measure(self._command(job, self.folder(job)), self.arguments.timeout)

    def _command(self, job: Job, folder: Path) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        binary = str(folder / "model.pimx")
        if job.kind != "compile":
            return [sys.executable, __file__, "--measure", binary, job.kind, str(job.position)]
        source = folder / job.model
        source.mkdir(exist_ok=True)
        shutil.copy(self.configs / f"{job.model}.json", source / "config.json")
        words = [sys.executable, "-m", "pimc", "compile", str(source), "--shapes-only", "-o", binary, "--json"]
        words += ["--max-seq", str(job.max_seq), "--target", self.arguments.target]
        return [*words, "--prefill-chunk", self.arguments.prefill_chunk]


def cycles(binary: str, kind: str, position: int) -> Result:
    """Cycles of a run of a binary, by timing alone; a prefill is of ``PROMPT`` tokens, chunk by chunk."""
    import numpy as np

    import pimc

    exe = pimc.load(binary, checks=False)  # races and unwritten data are found where there is data, in the tests
    one = np.zeros((1, 1), np.int32)
    if kind == "decode":
        inputs = {"tokens": one, "position": np.array([position])}
        return {"cycles": exe.run(inputs, entry="decode", timing_only=True).cycles}
    chunk = next(port.shape[1] for port in exe.inputs["prefill"] if port.name == "tokens")

    def of_chunk(start: int) -> Result:
        length = np.array([min(chunk, PROMPT - start)])
        inputs = {"tokens": np.zeros((1, chunk), np.int32), "position": np.array([start]), "length": length}
        return {"cycles": exe.run(inputs, entry="prefill", timing_only=True).cycles}

    starts = range(0, PROMPT, chunk)
    chunks = [kept(Path(binary).with_name(f"prefill-{start}.json"), partial(of_chunk, start)) for start in starts]
    each = [found["cycles"] for found in chunks]
    return {"cycles": sum(each), "chunk": chunk, "chunks": each}


def page(bench: Bench, models: Sequence[str]) -> str:
    """The page of all results that there are."""
    lines = [
        f"<!-- Generated by `{COMMAND}`: do not edit. -->",
        "",
        "# Large models",
        "",
        f"Models of the field on the target `{bench.arguments.target}`, compiled without weights (`pimc compile"
        " --shapes-only`) and timed (`pimc run",
        "--timing-only`); the configurations are in `benchmarks/models/`, as published. Generated by",
        "",
        f"    {COMMAND}",
        "",
        f"Cycles are of the cores' clock: of a prefill of {PROMPT} tokens, chunk by chunk, and of one token at a",
        "position. What is refused has the first line of the error.",
        "",
        "## Time on the machine",
        "",
        *_times(bench, models),
        "",
        "## Programs, and what compiling took",
        "",
        "The longest stream of all cores and of all channels, prefill and decode; `same` says whether all streams have",
        "as many words at both lengths.",
        "",
        *_programs(bench, models),
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _times(bench: Bench, models: Sequence[str]) -> Iterator[str]:
    heads = ("prefill 512", *(f"decode at {position}" for position in POSITIONS), "decode at the last")
    yield _row(("model", "max-seq", *heads))
    yield _row(("---", *["---:"] * (len(heads) + 1)))
    for model in models:
        for length in lengths(model, bench.configs):
            refused = (bench.result(Job(model, length, "compile")) or {}).get("error")
            if refused is not None:
                yield _row((model, length, _plain(refused), *[""] * (len(heads) - 1)))
                continue
            wanted = [("prefill", 0), *(("decode", p) for p in POSITIONS), ("decode", length - 1)]
            known = set(jobs([model], bench.configs))
            found = (Job(model, length, *item) for item in wanted)
            yield _row((model, length, *(_cycles(bench.result(job)) if job in known else "-" for job in found)))


def _cycles(result: Result | None) -> str:
    if result is None:
        return "not run"
    return _plain(result["error"]) if "error" in result else f"{result['cycles']:,}"


def _plain(text: str) -> str:
    """A text in one cell of a table."""
    return text.replace("|", "\\|").replace("*", "\\*")


def _programs(bench: Bench, models: Sequence[str]) -> Iterator[str]:
    yield _row(("model", "max-seq", "instructions a core", "commands a channel", "bytes of code", "same", "s", "GB"))
    yield _row(("---", *["---:"] * 7))
    for model in models:
        found = {length: bench.result(Job(model, length, "compile")) for length in lengths(model, bench.configs)}
        sizes = [result["entries"] for result in found.values() if result and "error" not in result]
        same = "yes" if len(sizes) == len(found) and all(size == sizes[0] for size in sizes) else "no"
        for length, result in found.items():
            if result is None or "error" in result:
                yield _row((model, length, "refused" if result else "not run", *[""] * 5))
                continue
            entries = [result["entries"][name] for name in ("prefill", "decode")]
            counts = (
                " / ".join(f"{entry[kind]['max_instructions']:,}" for entry in entries)
                for kind in ("cores", "controllers")
            )
            cells = (*counts, f"{result['code_bytes']:,}", same, result["seconds"], f"{result['peak_gb']:.2f}")
            yield _row((model, length, *cells))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="DIR", help="where results are kept")
    parser.add_argument("--models", default="", help="some of the models, by name")
    parser.add_argument("--configs", type=Path, default=HERE / "models", help="other configurations")
    parser.add_argument("--kinds", default="compile,prefill,decode", help="run jobs of some kinds only")
    parser.add_argument("--target", default="hpim")
    parser.add_argument("--prefill-chunk", metavar="N", default="auto", help="as of `pimc compile`")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds of a job")
    parser.add_argument("--table", action="store_true", help="run nothing, print the page of what is there")
    parser.add_argument("--write", action="store_true", help="write docs/models.md")
    parser.add_argument("--measure", nargs=3, metavar=("BINARY", "KIND", "POSITION"), help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Run the jobs that have no result, and make the page."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.measure:
        binary, kind, position = arguments.measure
        print(json.dumps(cycles(binary, kind, int(position))))  # noqa: T201
        return 0
    if not arguments.results:
        parser.error("--results DIR is needed")
    models = arguments.models.split(",") if arguments.models else list(MODELS)
    bench = Bench(arguments)
    if not arguments.table:
        for job in (job for job in jobs(models, arguments.configs) if job.kind in arguments.kinds.split(",")):
            result = bench.run(job)
            said = result.get("error") or (f"{result['cycles']:,} cycles" if "cycles" in result else "done")
            print(f"{job}: {said} ({result.get('seconds', 0)} s)", file=sys.stderr, flush=True)  # noqa: T201
    text = page(bench, models)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
