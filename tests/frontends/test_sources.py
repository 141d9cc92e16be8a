"""Files and folders as users give them: what is refused, and how."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer

from pimc.diagnostics import InputError
from pimc.frontends import import_model
from pimc.frontends.gguf import load_gguf
from pimc.frontends.gguf_file import read_gguf

HIDDEN, HEADS, KV_HEADS, FFN, VOCAB, LAYERS = 32, 4, 2, 64, 40, 2


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        import_model(path, max_seq=16, prefill_chunk=8)
    return caught.value


def write_gguf(path: Path, architecture: str = "llama", pre: str = "smollm") -> dict[str, np.ndarray]:
    """A tiny Llama in a GGUF file; returns its tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    tokens = ["<s>", "</s>", *(chr(ord("a") + index) for index in range(26)), "ab", "abc", "Ġ", "Ġa"]
    tokens += [f"<extra_{index}>" for index in range(VOCAB - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") else 1 for token in tokens])
    writer.add_token_merges(["a b", "ab c", "Ġ a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ bos_token }}{{ messages[0]['content'] }}")
    rng = np.random.default_rng(1)
    head = HIDDEN // HEADS
    shapes = {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (HIDDEN,),
            f"blk.{layer}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{layer}.attn_k.weight": (KV_HEADS * head, HIDDEN),
            f"blk.{layer}.attn_v.weight": (KV_HEADS * head, HIDDEN),
            f"blk.{layer}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_norm.weight": (HIDDEN,),
            f"blk.{layer}.ffn_gate.weight": (FFN, HIDDEN),
            f"blk.{layer}.ffn_up.weight": (FFN, HIDDEN),
            f"blk.{layer}.ffn_down.weight": (HIDDEN, FFN),
        }
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, value in tensors.items():
        quantised = value.ndim == 2 and "ffn" in name
        kind = gguf.GGMLQuantizationType.Q8_0
        data = gguf.quantize(value, kind) if quantised else value
        writer.add_tensor(name, data, raw_dtype=kind if quantised else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file or folder" in str(refused(tmp_path / "absent"))


def test_folder_without_config(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert "not a model folder: there is no config.json" in str(error)
    assert error.hint == "give a Hugging Face folder"


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_damaged_config(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert "config.json" in str(refused(tmp_path))


def test_unsupported_model_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    error = refused(tmp_path)
    assert "model type 'mamba' is not supported" in str(error)
    assert error.hint is not None
    assert "llama" in error.hint


def test_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "the model cannot be loaded" in str(refused(tmp_path))


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    error = refused(path)
    assert "a file of a kind that is not known" in str(error)
    assert ".gguf, .onnx, .pt2 or .mlir file" in str(error.hint)


@pytest.mark.parametrize("content", [b"", b"GG", b"GGML" + bytes(100)])
def test_no_gguf_magic(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert "not a GGUF file" in str(refused(path))


def test_gguf_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 9, 0, 0))
    assert "GGUF version 9 is not supported" in str(refused(path))


def test_every_truncation_of_a_gguf_file_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path)
    content = path.read_bytes()
    for size in [*range(0, 400, 7), len(content) // 2, len(content) - 100]:
        path.write_bytes(content[:size])
        with pytest.raises(InputError):
            load_gguf(path)


def test_counts_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    key = struct.pack("<Q", 1) + b"k"
    for value in (struct.pack("<IQ", 8, 2**60), struct.pack("<IIQ", 9, 8, 2**60), struct.pack("<IIQ", 9, 4, 2**60)):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + value)
        with pytest.raises(InputError, match="truncated"):
            read_gguf(path)


def test_unsupported_gguf_architecture(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, architecture="rwkv6")
    assert "GGUF architecture 'rwkv6' is not supported" in str(refused(path))


def test_unsupported_text_splitting(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, pre="tekken")
    assert "text splitting 'tekken'" in str(refused(path))


def test_gguf_weights_and_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tensors = write_gguf(path)
    result = import_model(path, max_seq=16, prefill_chunk=8)
    weights = result.weights
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], tensors["token_embd.weight"])
    np.testing.assert_allclose(
        weights["model.layers.1.mlp.down_proj.weight"], tensors["blk.1.ffn_down.weight"], atol=0.05
    )
    # Head 0, pair 1 lies in rows 2 and 3 of the file; its second half is row 1 + D/2 in the model.
    stored, loaded = tensors["blk.0.attn_k.weight"], weights["model.layers.0.self_attn.k_proj.weight"]
    np.testing.assert_array_equal(loaded[1], stored[2])
    np.testing.assert_array_equal(loaded[1 + HIDDEN // HEADS // 2], stored[3])

    assert result.tokenizer_json is not None
    tokenizer = Tokenizer.from_str(result.tokenizer_json)
    assert tokenizer.encode("abcab a</s>").tokens == ["abc", "ab", "Ġa", "</s>"]
    assert tokenizer.decode(tokenizer.encode("abc a").ids) == "abc a"
    assert (result.eos_ids, result.special["bos_token"]) == ([1], "<s>")
    assert result.chat_template is not None


@pytest.mark.parametrize("kind", ["AutoModelForCausalLM", "AutoModel"])
def test_code_in_a_folder_does_not_run(tmp_path: Path, kind: str) -> None:
    """A folder may carry code of its own model; whoever made it is a stranger."""
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    auto = {"AutoConfig": "evil.Config", kind: "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}
    config = {"model_type": "evil", "auto_map": auto, "architectures": ["Model"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto, "tokenizer_class": "Tokenizer"}))
    with pytest.raises(InputError):
        import_model(tmp_path, max_seq=16)
    assert not ran.exists()
