"""A tile tower whose answer is one vector a picture: it projects the class row, or a learned query pools all rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.families.clip_tower import block_sources
from export.families.tile_tower import PATCH, TileTower, for_bytes, hidden_states
from export.graph.builder import CONTRIB, Builder
from export.graph.group import Group
from export.graph.layers import Layers
from export.graph.tower import Read, Tower, block_shapes, linear_shapes, norm_shapes

__all__ = ["PooledTower", "body", "for_bytes", "pool", "pooled_tower"]

TOWER = "vision_model."
HEAD = f"{TOWER}head."
QUERY, KEYS_AND_VALUES = "pool.query", "pool.kv"


@dataclass(frozen=True, kw_only=True)
class PooledTower(TileTower):
    """A tower with a head.

    Attributes:
        has_query: a learned query pools the rows (SigLIP); without it the head projects the class row (CLIP).
    """

    has_query: bool = False

    def reader(self, read: Read) -> Read:
        """See TileTower.reader. It computes the query's own layer here, because that layer depends on no picture."""
        plain, hidden = super().reader(read), self.hidden_size

        def reading(name: str) -> NDArray[np.float32]:
            if name.startswith(f"{KEYS_AND_VALUES}."):
                return read(f"{HEAD}attention.in_proj_{name.rsplit('.', 1)[1]}")[hidden:]
            if name == QUERY:
                weight, bias = (read(f"{HEAD}attention.in_proj_{kind}")[:hidden] for kind in ("weight", "bias"))
                query: NDArray[np.float32] = weight @ read(f"{HEAD}probe").reshape(hidden) + bias
                return query.reshape(1, 1, hidden)
            return plain(name)

        return reading


def pooled_tower(vision: Any, width: int, *, side: int, has_class_row: bool) -> PooledTower:
    """The picture tower of a resolved config.

    Args:
        vision: vision_config, with transformers' defaults.
        width: how many values a vector has.
        side: patches along a side of a picture.
        has_class_row: the tower has a class row and a norm before its blocks (CLIP), else a query pools (SigLIP).
    """
    made = PooledTower(
        depth=vision.num_hidden_layers,
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_heads=vision.num_attention_heads,
        out_hidden_size=width,
        patch_size=vision.patch_size,
        merge_size=1,
        activation=vision.hidden_act,
        norm_epsilon=vision.layer_norm_eps,
        fixed_side=side,
        features=(vision.num_hidden_layers,),
        has_class_row=has_class_row,
        has_pre_norm=has_class_row,
        has_query=not has_class_row,
    )
    made = replace(made, shapes=_shapes(made))
    return replace(made, sources=dict(_sources(made)))


def _shapes(tower: PooledTower) -> dict[str, tuple[int, ...]]:
    hidden, wide = tower.hidden_size, tower.intermediate_size
    found: dict[str, tuple[int, ...]] = {
        f"{PATCH}.weight": (hidden, 3, tower.patch_size, tower.patch_size),
        f"{PATCH}.bias": (hidden,),
        "pos_embed.weight": (tower.num_positions, hidden),
        **norm_shapes("post_norm", hidden),
    }
    for number in range(tower.depth):
        found |= block_shapes(number, hidden, wide)
    if not tower.has_query:
        found |= {"class_embed": (hidden,), **norm_shapes("pre_norm", hidden)}
        return found | linear_shapes("merger.linear_fc1", tower.out_hidden_size, hidden)
    found |= {QUERY: (1, 1, hidden), **linear_shapes(KEYS_AND_VALUES, 2 * hidden, hidden)}
    found |= linear_shapes("pool.proj", hidden, hidden) | norm_shapes("pool.norm", hidden)
    return found | linear_shapes("pool.mlp.linear_fc1", wide, hidden) | linear_shapes("merger.linear_fc2", hidden, wide)


def _sources(made: PooledTower) -> Mapping[str, tuple[str, ...]]:
    embeddings = f"{TOWER}embeddings"
    found: dict[str, tuple[str, ...]] = {
        f"{PATCH}.weight": (f"{embeddings}.patch_embedding.weight",),
        f"{PATCH}.bias": (f"{embeddings}.patch_embedding.bias",) if made.has_query else (),
        "class_embed": (f"{embeddings}.class_embedding",),
        "pos_embed.weight": (f"{embeddings}.position_embedding.weight",),
        "merger.linear_fc1.weight": ("visual_projection.weight",),
        "merger.linear_fc1.bias": (),
    }
    for kind in ("weight", "bias"):
        found |= {
            f"pre_norm.{kind}": (f"{TOWER}pre_layrnorm.{kind}",),
            f"post_norm.{kind}": (f"{TOWER}post_layernorm.{kind}",),
            f"pool.proj.{kind}": (f"{HEAD}attention.out_proj.{kind}",),
            f"pool.norm.{kind}": (f"{HEAD}layernorm.{kind}",),
            f"pool.mlp.linear_fc1.{kind}": (f"{HEAD}mlp.fc1.{kind}",),
            f"merger.linear_fc2.{kind}": (f"{HEAD}mlp.fc2.{kind}",),
        }
        for i in range(made.depth):
            found |= block_sources(f"blocks.{i}", f"{TOWER}encoder.layers.{i}", kind)
    return {name: parts for name, parts in found.items() if name in made.shapes}


def body(graph: Builder, layers: Layers, tower: Tower, group: Group) -> tuple[str, list[str]]:
    """The tower over a group of pictures, (pictures, width); see export.families.Family."""
    assert isinstance(tower, PooledTower)
    op, hidden, count = graph.op, tower.hidden_size, tower.num_positions
    rows = hidden_states(graph, layers, tower, group)[-1]  # (pictures * count, hidden)
    if not tower.has_query:
        rows = op("Reshape", [rows, graph.ints(-1, count, hidden)])
        first = op("Slice", [rows, graph.ints(0), graph.ints(1), graph.ints(1)])
        first = op("Reshape", [first, graph.ints(-1, hidden)])
        return layers.linear(layers.norm(first, "post_norm"), "merger.linear_fc1"), []
    return pool(graph, layers, tower, rows, group.frames), []


def pool(graph: Builder, layers: Layers, tower: Tower, rows: str, frames: str) -> str:
    """The vectors of pictures, (pictures, width), from the last block's rows (pictures * count, hidden).

    Args:
        frames: int64 (1,), how many pictures.
    """
    op, hidden = graph.op, tower.hidden_size
    pairs = layers.linear(layers.norm(rows, "post_norm"), KEYS_AND_VALUES)  # (pictures * count, 2 * hidden)
    pairs = op("Reshape", [pairs, op("Concat", [frames, graph.ints(-1, 2 * hidden)], axis=0)])
    keys, values = graph.ops("Split", [pairs], ["pool_keys", "pool_values"], axis=2, num_outputs=2)
    shape = op("Concat", [frames, graph.ints(1, hidden)], axis=0)
    query = op("Expand", [layers.weight(QUERY), shape])  # (pictures, 1, hidden)
    pooled = op("MultiHeadAttention", [query, keys, values], domain=CONTRIB, num_heads=tower.num_heads)
    pooled = layers.linear(op("Reshape", [pooled, graph.ints(-1, hidden)]), "pool.proj")
    wide = layers.linear(layers.norm(pooled, "pool.norm"), "pool.mlp.linear_fc1")
    wide = layers.activation(wide, tower.activation)
    return op("Add", [pooled, layers.linear(wide, "merger.linear_fc2")])
