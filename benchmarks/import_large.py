"""Time and memory of importing a 30B-shape OPT, of which only shapes exist (PyTorch's meta device).

    python benchmarks/import_large.py [--layers 48] [--hidden 7168] [--heads 56] [--ffn 28672] [--vocab 50272] [--json]

Measured from the making of the model to the imported module with both entry points; the memory is the peak of the whole
process, PyTorch included.  The exit status is 1 if the bounds (60 s, 4 GB) do not hold.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

MAX_SECONDS, MAX_GIGABYTES = 60.0, 4.0
_POSITIONS = 2048
_KIB = 1024


def measure(layers: int, hidden: int, heads: int, ffn: int, vocab: int) -> dict[str, float | int | list[str]]:
    """Import the model; seconds, peak memory in GB, parameters, entry points."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    from pimc.frontends import import_model

    config = OPTConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        num_attention_heads=heads,
        ffn_dim=ffn,
        vocab_size=vocab,
        max_position_embeddings=_POSITIONS,
    )
    began = time.perf_counter()
    with torch.device("meta"):
        model = OPTForCausalLM(config)
    imported = import_model(model, max_seq=_POSITIONS)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / 1e9, 3),
        "parameters": sum(torch.Size(imported.weights.shape(name)).numel() for name in imported.weights.names()),
        "entries": [op.sym_name.data for op in imported.module.ops if op.name == "func.func"],
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 48), ("hidden", 7168), ("heads", 56), ("ffn", 28672), ("vocab", 50272)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.layers, arguments.hidden, arguments.heads, arguments.ffn, arguments.vocab)
    if arguments.json:
        print(json.dumps(found))  # noqa: T201
    else:
        for name, value in found.items():
            print(f"{name}: {value}")  # noqa: T201
    within = found["seconds"] < MAX_SECONDS and found["gigabytes"] < MAX_GIGABYTES  # type: ignore[operator]
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
