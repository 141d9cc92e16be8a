"""The ``pim`` dialect: placed and partitioned work (see ``ops`` and ``attributes``)."""

from xdsl.ir import Dialect

from pimc.ir.layout import (
    LayoutAttr,
    Piece,
    ShardAttr,
    ShardRound,
    layout_of,
    shard_of,
    with_layout,
    with_shard,
)
from pimc.ir.pim.attributes import (
    GemvLayoutAttr,
    HeadRound,
    HeadsAttr,
    RegionAttr,
    TokenType,
)
from pimc.ir.pim.changes import AllGatherOp, AllToAllOp, LayoutChangeOp, TakeOp
from pimc.ir.pim.conv import ConvOp
from pimc.ir.pim.encoder import AttentionFullOp
from pimc.ir.pim.ops import (
    AsyncOp,
    AttentionOp,
    AwaitOp,
    EmbeddingOp,
    GemmOp,
    GemvOp,
    KvAppendOp,
    MatrixOp,
    SelectTokenOp,
    YieldOp,
)
from pimc.ir.pim.values import EmptyOp, FillOp, ReadOp, SpillOp, WriteOp

PIM = Dialect(
    "pim",
    [
        GemvOp,
        GemmOp,
        AllGatherOp,
        AllToAllOp,
        TakeOp,
        SpillOp,
        FillOp,
        EmptyOp,
        ReadOp,
        WriteOp,
        KvAppendOp,
        AttentionOp,
        AttentionFullOp,
        ConvOp,
        EmbeddingOp,
        SelectTokenOp,
        AsyncOp,
        AwaitOp,
        YieldOp,
    ],
    [LayoutAttr, ShardAttr, HeadsAttr, GemvLayoutAttr, RegionAttr, TokenType],
)

__all__ = [
    "PIM",
    "AllGatherOp",
    "AllToAllOp",
    "AsyncOp",
    "AttentionFullOp",
    "AttentionOp",
    "AwaitOp",
    "ConvOp",
    "EmbeddingOp",
    "EmptyOp",
    "FillOp",
    "GemmOp",
    "GemvLayoutAttr",
    "GemvOp",
    "HeadRound",
    "HeadsAttr",
    "KvAppendOp",
    "LayoutAttr",
    "LayoutChangeOp",
    "MatrixOp",
    "Piece",
    "ReadOp",
    "RegionAttr",
    "SelectTokenOp",
    "ShardAttr",
    "ShardRound",
    "SpillOp",
    "TakeOp",
    "TokenType",
    "WriteOp",
    "YieldOp",
    "layout_of",
    "shard_of",
    "with_layout",
    "with_shard",
]
