"""What rows cost in answers: compares the bundled model's distribution over answer tokens with that from fp32 rows.

Exact match hardly sees quantisation, and a changed arg max between two tokens that were as good as equal is noise. So
the divergence is the scale to read, and a changed token counts by the margin that it had.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures as Features

from edge_runtime import Encoder
from edge_runtime.items.item import Item as EdgeItem
from tiny_model.batches import IGNORE, Batch, Collator, Item

MODEL = Path("models/tiny")
Rows = tuple[NDArray[np.floating], NDArray[np.floating]]  # main (N, H), deepstack (L, N, H)


@dataclass(frozen=True)
class Cost:
    """Divergence in nats a token; changed tokens and changed answers per thousand; tokens per thousand that were right
    with fp32 rows and are wrong now; the largest margin in nats that a changed token had, 0 where none changed."""

    mean_divergence_nats: float
    changed_per_thousand: float
    answers_changed_per_thousand: float
    lost_per_thousand: float
    largest_changed_margin_nats: float


def encode(encoder: Encoder, item: Item) -> Rows:
    """Embeddings of one item. A timestamp marks a video; the tower does not see its value."""
    embeddings = encoder.encode([EdgeItem(item.patches, item.grid, (0.0,) if item.is_video else ())])
    return embeddings.image_embeds, embeddings.deepstack_embeds


class Answers:
    """Questions with their right answers, and what the bundled language model says to them with fp32 rows."""

    def __init__(self, items: Sequence[Item], rows: Sequence[Rows]) -> None:
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()
        collate = Collator(Tokenizer.from_file(str(MODEL / "tokenizer.json")))
        self.batches = [collate([item]) for item in items]
        self.expected = [self.scores(batch, some) for batch, some in zip(self.batches, rows, strict=True)]
        self.num_tokens = sum(map(len, self.expected))

    @torch.inference_mode()
    def scores(self, batch: Batch, rows: Rows) -> torch.Tensor:
        """Log probabilities of every answer token, (tokens, V)."""
        main, deepstack = (torch.from_numpy(part.astype(np.float32)) for part in rows)
        features = Features(pooler_output=[main], deepstack_features=[[level] for level in deepstack])
        logits = self.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            mm_encoder_outputs={"video" if batch.is_video else "image": features},
            use_cache=False,
        ).logits
        found: torch.Tensor = logits[batch.labels != IGNORE].double().log_softmax(-1)
        return found

    def cost(self, rows: Sequence[Rows]) -> Cost:
        """What it costs to answer from these rows, item by item."""
        divergence, margins, num_lost, num_answers, num_changed_answers = 0.0, list[float](), 0, 0, 0
        for batch, expected, some in zip(self.batches, self.expected, rows, strict=True):
            got = self.scores(batch, some)
            divergence += (expected.exp() * (expected - got)).sum().item()
            best = expected.topk(2, -1)
            before, now, labels = best.indices[:, 0], got.argmax(-1), batch.labels[batch.labels != IGNORE]
            is_changed = before != now
            margins += (best.values[:, 0] - best.values[:, 1])[is_changed].tolist()
            num_lost += int(((before == labels) & (now != labels)).sum())
            answers = batch.branches[batch.labels != IGNORE]
            num_answers += len(torch.unique(answers))
            num_changed_answers += len(torch.unique(answers[is_changed]))
        tokens = 1000 / self.num_tokens
        return Cost(
            float(f"{max(divergence, 0) / self.num_tokens:.3g}"),
            round(tokens * len(margins), 2),
            round(1000 * num_changed_answers / num_answers, 2),
            round(tokens * num_lost, 2),
            round(max(margins, default=0.0), 3),
        )
