"""The text tower of CLIP and SigLIP as an ONNX graph: token ids in, one vector a text out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.families.clip_tower import block_sources
from export.graph.builder import CONTRIB, Builder
from export.graph.layers import Layers
from export.graph.linear import FP32, Linear
from export.graph.operators import DOMAIN, functions
from export.graph.tower import Read, Tower, block_shapes, linear_shapes, norm_shapes

TOWER = "text_model."
TOKENS, POSITIONS, HEAD = "token_embed.weight", "pos_embed.weight", "head"


@dataclass(frozen=True, kw_only=True)
class TextTower(Tower):
    """A text tower.

    Attributes:
        vocab_size, max_tokens: rows of the tables of tokens and of positions.
        is_causal: a token sees only itself and the tokens before it.
        end_id: the first token with this id gives the vector; None takes the last token, -1 the token of the highest
            id.
        sources: tower-local name to the checkpoint's tensors that make it, one after the other; empty where it is zero.
    """

    vocab_size: int
    max_tokens: int
    is_causal: bool
    end_id: int | None
    table_side: int = 0
    taps: tuple[int, ...] = ()
    patch_size: int = 1
    temporal_patch_size: int = 1
    merge_size: int = 1
    rope_theta: float = 0.0
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def reader(self, read: Read) -> Read:
        """A reader of tower-local names, from `read`, which takes the checkpoint's names; float32."""

        def reading(name: str) -> NDArray[np.float32]:
            parts, shape = self.sources[name], self.shapes[name]
            if not parts:
                return np.zeros(shape, np.float32)
            return np.concatenate([read(part).reshape(-1) for part in parts]).reshape(shape)

        return reading


def text_tower(text: Any, width: int, head: str, *, has_bias: bool, is_causal: bool, end_id: int | None) -> TextTower:
    """The text tower of a resolved config.

    Args:
        text: text_config, with transformers' defaults.
        width: how many values a vector has.
        head: the checkpoint's name of the last layer.
        has_bias: the last layer has a bias.
        is_causal, end_id: as in TextTower.
    """
    made = TextTower(
        depth=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_heads=text.num_attention_heads,
        out_hidden_size=width,
        activation=text.hidden_act,
        norm_epsilon=text.layer_norm_eps,
        vocab_size=text.vocab_size,
        max_tokens=text.max_position_embeddings,
        is_causal=is_causal,
        end_id=end_id,
    )
    shapes: dict[str, tuple[int, ...]] = {
        TOKENS: (made.vocab_size, made.hidden_size),
        POSITIONS: (made.max_tokens, made.hidden_size),
        **norm_shapes("norm", made.hidden_size),
        **linear_shapes(HEAD, width, made.hidden_size),
    }
    sources: dict[str, tuple[str, ...]] = {
        TOKENS: (f"{TOWER}embeddings.token_embedding.weight",),
        POSITIONS: (f"{TOWER}embeddings.position_embedding.weight",),
        f"{HEAD}.weight": (f"{head}.weight",),
        f"{HEAD}.bias": (f"{head}.bias",) if has_bias else (),
    }
    for number in range(made.depth):
        shapes |= block_shapes(number, made.hidden_size, made.intermediate_size)
    for kind in ("weight", "bias"):
        sources[f"norm.{kind}"] = (f"{TOWER}final_layer_norm.{kind}",)
        for number in range(made.depth):
            sources |= block_sources(f"blocks.{number}", f"{TOWER}encoder.layers.{number}", kind)
    return replace(made, shapes=shapes, sources=sources)


def write_text_graph(tower: TextTower, read: Read, path: Path, linear: Linear = FP32) -> int:
    """Write the graph and its weights to `path` and `path` + .data; returns the number of nodes.

    Input: input_ids int64 (num_texts, num_tokens). Output: text_embeds float32 (num_texts, width).

    Args:
        read: gives a tower tensor by its tower-local name, float32.
        linear: how the graph stores and multiplies matrices; it stores the tables in fp16 unless `linear` is float32.

    Raises:
        BundleError: the graph has no operator for the activation.
        OSError: the disk is full, or the process may not write there.
    """
    graph, hidden = Builder(), tower.hidden_size
    layers, op = Layers(graph, tower, read, linear), graph.op
    ids_shape = op("Shape", ["input_ids"], "ids_shape")  # (2,)
    length = op("Slice", [ids_shape, graph.ints(1), graph.ints(2)])
    places = op("Slice", [_table(graph, read, POSITIONS, linear), graph.ints(0), length, graph.ints(0)])
    rows = op("Gather", [_table(graph, read, TOKENS, linear), "input_ids"], axis=0)  # (n, S, hidden)
    if linear.bits != "32":
        rows, places = (op("Cast", [one], to=TensorProto.FLOAT) for one in (rows, places))
    rows = op("Reshape", [op("Add", [rows, places]), graph.ints(-1, hidden)])  # (n * S, hidden)
    whole = op("Concat", [ids_shape, graph.ints(3 * hidden)], "packed_shape", axis=0)
    for number in range(tower.depth):
        rows = _block(graph, layers, tower, rows, number, whole)
    rows = layers.norm(rows, "norm")
    rows = op("Reshape", [rows, op("Concat", [ids_shape, graph.ints(hidden)], axis=0)])  # (n, S, hidden)
    taken = op("Reshape", [_taken(graph, tower, rows, ids_shape), graph.ints(-1, hidden)])
    op("Identity", [layers.linear(taken, HEAD)], "text_embeds")
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["num_texts", "num_tokens"])]
    outputs = [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["num_texts", tower.out_hidden_size])]
    graph.save(path, inputs, outputs, functions(graph.kinds(DOMAIN), tower.norm_epsilon, tower.activation))
    return graph.num_nodes()


def _table(graph: Builder, read: Read, name: str, linear: Linear) -> str:
    return graph.weight(name, lambda: read(name) if linear.bits == "32" else read(name).astype(np.float16))


def _block(graph: Builder, layers: Layers, tower: TextTower, rows: str, number: int, whole: str) -> str:
    """One transformer block over (n * S, hidden); `whole` is the shape (n, S, 3 * hidden)."""
    op, name = graph.op, f"blocks.{number}"
    packed = layers.linear(layers.norm(rows, f"{name}.norm1"), f"{name}.attn.qkv")
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    graph.ops("Split", [op("Reshape", [packed, whole])], parts, axis=2, num_outputs=3)
    attended = op(
        "MultiHeadAttention", parts, domain=CONTRIB, num_heads=tower.num_heads, unidirectional=int(tower.is_causal)
    )
    attended = op("Reshape", [attended, graph.ints(-1, tower.hidden_size)])
    rows = op("Add", [rows, layers.linear(attended, f"{name}.attn.proj")])
    wide = layers.linear(layers.norm(rows, f"{name}.norm2"), f"{name}.mlp.linear_fc1")
    wide = layers.activation(wide, tower.activation)
    return op("Add", [rows, layers.linear(wide, f"{name}.mlp.linear_fc2")])


def _taken(graph: Builder, tower: TextTower, rows: str, ids_shape: str) -> str:
    """The row of each text that becomes its vector, (n, 1, hidden)."""
    op = graph.op
    if tower.end_id is None:
        return op("Slice", [rows, graph.ints(-1), graph.ints(2**31), graph.ints(1)])
    marks = "input_ids"
    if tower.end_id >= 0:
        marks = op("Cast", [op("Equal", ["input_ids", graph.ints(tower.end_id)])], to=TensorProto.INT64)
    place = op("ArgMax", [marks], axis=1, keepdims=1)  # (n, 1), the first of several
    place = op("Unsqueeze", [place, graph.ints(2)])
    count = op("Slice", [ids_shape, graph.ints(0), graph.ints(1)])
    place = op("Expand", [place, op("Concat", [count, graph.ints(1, tower.hidden_size)], axis=0)])
    return op("GatherElements", [rows, place], axis=1)
