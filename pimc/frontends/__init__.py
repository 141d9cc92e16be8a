"""Model formats -> IR.  Heavy libraries (torch, transformers) are imported when a model is."""

from pimc.frontends.importer import import_checkpoint
from pimc.frontends.model import Checkpoint, ImportedModel, TokenizerData
from pimc.frontends.sources import import_model, is_ir
from pimc.frontends.weights import ModelWeights

__all__ = [
    "Checkpoint",
    "ImportedModel",
    "ModelWeights",
    "TokenizerData",
    "import_checkpoint",
    "import_model",
    "is_ir",
]
