"""Small random models of real architectures, saved as Hugging Face folders, and their PyTorch logits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VOCAB = 200


@dataclass(frozen=True)
class Family:
    """One architecture with small sizes; ``config`` is a transformers configuration class and its arguments."""

    name: str
    config_class: str
    arguments: dict[str, object]


_LLAMA = {"vocab_size": VOCAB, "max_position_embeddings": 256, "rms_norm_eps": 1e-5}
_LLAMA |= {"bos_token_id": 1, "eos_token_id": 2}
FAMILIES = (
    Family(
        "llama-gqa-9-3",  # SmolLM2's head counts: rounds and leftovers of Algorithm 1
        "LlamaConfig",
        _LLAMA
        | {"hidden_size": 288, "intermediate_size": 320, "num_hidden_layers": 3, "num_attention_heads": 9}
        | {"num_key_value_heads": 3, "tie_word_embeddings": True},
    ),
    Family(
        "llama-mha-4",
        "LlamaConfig",
        _LLAMA
        | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"num_key_value_heads": 4, "tie_word_embeddings": False},
    ),
    Family(
        "llama-quick-gelu",  # an activation that raise does not know stays as primitives
        "LlamaConfig",
        _LLAMA
        | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "tie_word_embeddings": False, "hidden_act": "quick_gelu"},
    ),
    Family(
        "opt",
        "OPTConfig",
        {"vocab_size": VOCAB, "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"max_position_embeddings": 256, "word_embed_proj_dim": 64},
    ),
)


def build(family: Family, folder: Path, seed: int = 0) -> object:
    """The PyTorch model (fp32, evaluation mode) with seeded weights that fp16 holds exactly; saved to ``folder``."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, family.config_class)(**family.arguments)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if parameter.ndim == 1 else 3.0  # sharper logits than the initialisation's
            offset = torch.randn_like(parameter) * 0.1 if name.endswith("bias") else 0.0
            parameter.copy_((parameter * scale + offset).half().float())
    model.save_pretrained(folder)
    return model


def torch_logits(model: object, tokens: list[int]) -> NDArray[np.float32]:
    """Logits at every position, [tokens, vocab] f32."""
    import torch

    with torch.no_grad():
        result = model(torch.tensor([tokens])).logits[0]  # type: ignore[operator]
    return np.asarray(result.numpy(), np.float32)
