"""The ``pim`` dialect: placed and partitioned work (see ``ops`` and ``attributes``)."""

from xdsl.ir import Dialect

from pimc.ir.pim.attributes import (
    GemvLayoutAttr,
    HeadRound,
    HeadsAttr,
    Piece,
    RegionAttr,
    ShardAttr,
    ShardRound,
    TokenType,
    shard_of,
    with_shard,
)
from pimc.ir.pim.encoder import AttentionFullOp
from pimc.ir.pim.ops import (
    AllGatherOp,
    AsyncOp,
    AttentionOp,
    AwaitOp,
    EmbeddingOp,
    GemmOp,
    GemvOp,
    KvAppendOp,
    MatrixOp,
    YieldOp,
)

PIM = Dialect(
    "pim",
    [
        GemvOp,
        GemmOp,
        AllGatherOp,
        KvAppendOp,
        AttentionOp,
        AttentionFullOp,
        EmbeddingOp,
        AsyncOp,
        AwaitOp,
        YieldOp,
    ],
    [ShardAttr, HeadsAttr, GemvLayoutAttr, RegionAttr, TokenType],
)

__all__ = [
    "PIM",
    "AllGatherOp",
    "AsyncOp",
    "AttentionFullOp",
    "AttentionOp",
    "AwaitOp",
    "EmbeddingOp",
    "GemmOp",
    "GemvLayoutAttr",
    "GemvOp",
    "HeadRound",
    "HeadsAttr",
    "KvAppendOp",
    "MatrixOp",
    "Piece",
    "RegionAttr",
    "ShardAttr",
    "ShardRound",
    "TokenType",
    "YieldOp",
    "shard_of",
    "with_shard",
]
