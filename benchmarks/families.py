"""How far the simulator is from PyTorch in fp32 for every model family, beside PyTorch's own fp16.

python benchmarks/families.py                 all: about two minutes
python benchmarks/families.py --only gpt      those whose names have it
"""

from __future__ import annotations

import argparse
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import model_families as families


def of_torch(name: str) -> tuple[float, float]:
    """The largest |difference| of any output between PyTorch in fp16 and in fp32, and the largest |output|."""
    model = families.build(name)
    models = (model, deepcopy(model).half())
    if name in families.ENCODERS:
        inputs, counts = families.encoder_inputs(name)
        whole, half = (families.hidden_states(each, inputs)[counts] for each in models)
    else:
        tokens = families.random_tokens(families.PROMPT + families.DECODED)
        whole, half = (families.torch_logits(each, tokens) for each in models)
    return float(np.abs(half - whole).max()), float(np.abs(whole).max())


def main() -> int:
    """Print the table; exit status 1 if a family is beyond the bound of the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="families whose names have it")
    wanted = parser.parse_args().only
    table = Table("family", "largest output", "simulator", "PyTorch fp16", title="largest |difference| from fp32")
    worst = 0.0
    for name in (name for name in (*families.ALL, *families.ENCODERS) if wanted in name):
        found = max(families.family_differences(name).values())
        half, largest = of_torch(name)
        worst = max(worst, found)
        table.add_row(name, f"{largest:.1f}", f"{found:.4f}", f"{half:.4f}")
    console = Console()
    console.print(table)
    console.print(f"bound {families.BOUND:.4f}, worst {worst:.4f}")
    return int(worst >= families.BOUND)


if __name__ == "__main__":
    sys.exit(main())
