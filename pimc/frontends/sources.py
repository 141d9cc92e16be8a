"""Whatever a user gives -> an imported model: the kind of source decides which frontend reads it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import InputError, UsageError
from pimc.files import reason, regular_file
from pimc.frontends.dump import SUFFIX, import_ir
from pimc.frontends.encoders import ENCODER_TYPES, encoder_type, folder_type, import_encoder, import_encoder_folder
from pimc.frontends.huggingface import ENCODER_DECODER_TYPES
from pimc.frontends.importer import quiet_transformers
from pimc.frontends.model import Checkpoint, ImportedModel
from pimc.frontends.user_code import load_example, names_code
from pimc.requirements import import_hint
from pimc.timings import stage

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

Array: TypeAlias = NDArray[np.generic]

_KINDS: Final = "a Hugging Face folder (it needs config.json), a .gguf, .onnx, .pt2 or .mlir file, or file.py:function"


def import_model(
    source: object,
    *,
    max_seq: int,
    prefill_chunk: int = 16,
    example_inputs: Sequence[object] | Mapping[str, object] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    bind: Mapping[str, Array] | None = None,
    weights: str | Path | None = None,
    shapes_only: bool = False,
) -> ImportedModel:
    """Import a model.

    Args:
        source: a path (Hugging Face folder, GGUF, ONNX or .pt2 file, or IR in an .mlir file);
            ``package.module:function`` or ``file.py:function``, which returns a module and example inputs; or an
            object: a PyTorch module, an exported program, an ONNX model, a causal language model of `transformers`.
        max_seq: of a language model, the tokens the caches hold (rounded up to whole chunks).
        prefill_chunk: of a language model, the tokens of a prefill call.
        example_inputs: of a PyTorch module, its arguments: positional ones, or a dictionary of named ones.
        shapes: of an ONNX model or an encoder, shapes of inputs that it leaves open.
        bind: of an ONNX model, values of inputs that become constants.
        weights: of IR, the safetensors file with its weights.
        shapes_only: weights need not be there: of a folder, config.json is enough; IR may lack its file of weights.

    Raises:
        InputError: what is wrong with the input: missing, not a model, truncated, weights that do not fit fp16.
        UnsupportedModelError: operators without a conversion, all of them.
        UsageError: arguments that the kind of source does not take.
    """
    given = _Given(max_seq, prefill_chunk, example_inputs, shapes or {}, bind or {}, shapes_only)
    if is_ir(source):
        return given.of_ir(Path(str(source)), None if weights is None else Path(weights))
    if weights is not None:
        raise UsageError("only IR takes a file of weights", hint="other kinds of models hold theirs")
    return given.of_path(str(source)) if isinstance(source, str | Path) else given.of_object(source)


def is_ir(source: object) -> bool:
    """Whether a source is the path of IR, by its suffix."""
    return isinstance(source, str | Path) and Path(source).suffix == SUFFIX


class _Given:
    """What was given with a source; each kind of source takes some of it."""

    def __init__(
        self,
        max_seq: int,
        prefill_chunk: int,
        example_inputs: Sequence[object] | Mapping[str, object] | None,
        shapes: Mapping[str, Sequence[int]],
        bind: Mapping[str, Array],
        shapes_only: bool,
    ) -> None:
        self.max_seq = max_seq
        self.prefill_chunk = prefill_chunk
        self.example_inputs = example_inputs
        self.shapes = shapes
        self.bind = bind
        self.shapes_only = shapes_only

    def of_path(self, text: str) -> ImportedModel:
        """A file, a folder, or the name of code."""
        path = Path(text)
        if not path.exists():
            if not names_code(text):
                raise InputError("there is no such file or folder", where=text)
            self._refuse("code that makes a module", examples=True)
            return _of_code(text)
        if not path.is_dir():
            regular_file(path)
        try:
            _import_libraries(path)
            return self._of_file(path)
        except ImportError as error:
            raise InputError(f"importing models needs the package {error.name}", hint=import_hint()) from error
        except OSError as error:
            raise InputError(f"cannot be read: {reason(error)}", where=text) from error

    def of_ir(self, path: Path, weights: Path | None) -> ImportedModel:
        """IR, which states its shapes."""
        self._refuse("IR", examples=True)
        if not path.is_file():
            raise InputError("there is no such file", where=str(path))
        return import_ir(path, weights, shapes_only=self.shapes_only)

    def _of_file(self, path: Path) -> ImportedModel:
        if path.suffix == ".onnx":
            self._refuse("an ONNX model", examples=True, onnx=False)
            return self._of_onnx(path)
        if path.is_dir() and encoder_type(path) is not None:
            self._refuse("an encoder's folder", examples=True, onnx=False)
            with quiet_transformers():
                return import_encoder_folder(path, self._open_shapes(), self.max_seq, shapes_only=self.shapes_only)
        if path.is_dir() and (model_type := folder_type(path)) in ENCODER_DECODER_TYPES:
            from pimc.frontends.encoder_decoder import import_encoder_decoder_folder

            self._refuse("an encoder-decoder's folder", examples=True, onnx=False)
            with quiet_transformers():
                return import_encoder_decoder_folder(path, self._open_shapes(), self.max_seq, model_type)
        self._refuse("this kind of source", examples=True)
        if path.suffix == ".pt2":
            from pimc.frontends.pt2 import load_pt2

            return _of_program(load_pt2(path), path.stem, path.resolve().parent)
        if path.is_dir():
            from pimc.frontends.huggingface import load_folder

            with quiet_transformers():
                return self._language_model(load_folder(path, shapes_only=self.shapes_only))
        if path.suffix == ".gguf" or path.open("rb").read(4) == b"GGUF":
            from pimc.frontends.gguf import load_gguf

            with quiet_transformers():
                return self._language_model(load_gguf(path, shapes_only=self.shapes_only))
        raise InputError("a file of a kind that is not known", hint=f"give {_KINDS}", where=str(path))

    def _open_shapes(self) -> Mapping[str, Sequence[int]]:
        """Shapes of an encoder's inputs; its inputs cannot become constants."""
        if self.bind:
            raise UsageError("an encoder takes no values of inputs", hint="they go with ONNX models")
        return self.shapes

    def _language_model(self, checkpoint: Checkpoint) -> ImportedModel:
        from pimc.frontends.importer import import_checkpoint

        return import_checkpoint(checkpoint, max_seq=self.max_seq, prefill_chunk=self.prefill_chunk)

    def _of_onnx(self, source: object) -> ImportedModel:
        from pimc.frontends.onnx import import_onnx

        return import_onnx(
            source, shapes=self.shapes, bind=self.bind, max_seq=self.max_seq, prefill_chunk=self.prefill_chunk
        )

    def of_object(self, source: object) -> ImportedModel:
        """A model in memory."""
        kinds = {base.__name__ for base in type(source).__mro__}
        if "ModelProto" in kinds:
            self._refuse("an ONNX model", examples=True, onnx=False)
            return self._of_onnx(source)
        if "PreTrainedModel" in kinds and self.example_inputs is None:
            return self._of_pretrained(source)
        if "ExportedProgram" in kinds:
            return self._of_exported(source)
        self._refuse("a PyTorch module")
        if "Module" not in kinds:
            raise InputError(f"cannot compile a {type(source).__name__}", hint=f"give a PyTorch module, or {_KINDS}")
        if self.example_inputs is not None:
            return _of_module(source, self.example_inputs)
        raise UsageError(f"a {type(source).__name__} needs example inputs", hint="pimc.compile(module, (tensor, ...))")

    def _of_exported(self, source: object) -> ImportedModel:
        from pimc.frontends.exported_shapes import with_shapes

        if self.bind:
            raise UsageError("an exported program takes no values of inputs", hint="they go with ONNX models")
        self._refuse("an exported program", examples=True, onnx=False)
        return _of_program(with_shapes(source, self.shapes), "program", None)

    def _of_pretrained(self, source: object) -> ImportedModel:
        from pimc.frontends.importer import checkpoint_of

        with quiet_transformers():
            if source.config.model_type in ENCODER_TYPES:  # type: ignore[attr-defined]  # of a PreTrainedModel
                return import_encoder(source, self._open_shapes(), self.max_seq)
            if source.config.model_type in ENCODER_DECODER_TYPES:  # type: ignore[attr-defined]
                from pimc.frontends.encoder_decoder import import_encoder_decoder, source_length

                length = source_length(self._open_shapes(), source.config.model_type)  # type: ignore[attr-defined]
                return import_encoder_decoder(checkpoint_of(source), max_seq=self.max_seq, source=length)
            self._refuse("a language model")
            return self._language_model(checkpoint_of(source))

    def _refuse(self, kind: str, *, examples: bool = False, onnx: bool = True) -> None:
        """UsageError for arguments that ``kind`` has no use for."""
        if examples and self.example_inputs is not None:
            raise UsageError(f"{kind} takes no example inputs", hint="they go with PyTorch modules in memory")
        if onnx and (self.shapes or self.bind):
            raise UsageError(
                f"{kind} takes no shapes and values of inputs",
                hint="shapes go with ONNX models, encoders and exported programs in memory, values with ONNX models",
            )


@stage("import model libraries")
def _import_libraries(path: Path) -> None:
    """What the kind of file needs, in a stage of its own: these take seconds."""
    if path.suffix == ".onnx":
        importlib.import_module("onnx")
    elif path.is_dir() or path.suffix == ".gguf":
        importlib.import_module("torch")
        importlib.import_module("transformers.models.auto.modeling_auto")
    elif path.suffix == ".pt2":
        importlib.import_module("torch")


def _of_code(text: str) -> ImportedModel:
    from pimc.frontends.torch_program import import_module

    example = load_example(text)
    return import_module(example.module, example.inputs, example.kwargs)


def _of_program(program: ExportedProgram, name: str, folder: Path | None) -> ImportedModel:
    """A decoder with a static cache, or any other program; ``folder`` may have a tokenizer."""
    from pimc.frontends.static_cache import cache_buffers, import_static_decoder
    from pimc.frontends.torch_program import import_program

    return import_static_decoder(program, name, folder) if cache_buffers(program) else import_program(program, name)


def _of_module(module: torch.nn.Module, inputs: Sequence[object] | Mapping[str, object]) -> ImportedModel:
    import torch

    from pimc.frontends.torch_program import import_module

    if isinstance(inputs, Mapping):
        return import_module(module, (), inputs)
    return import_module(module, (inputs,) if isinstance(inputs, torch.Tensor) else inputs)
