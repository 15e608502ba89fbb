"""What a tower's precision costs in answers, on the bundled model: `make precisions`.

Exact match hardly sees quantisation. What does is the distribution over the answer's tokens: its divergence from that of
the fp32 tower, and how many tokens out of a thousand would have been another. The wire's half precision is one more row.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures as Features

from benchmarks.machine import machine
from contract.manifest import PRECISIONS
from edge_runtime import Encoder
from edge_runtime.items.preparation import Item as EdgeItem
from edge_runtime.tower import kernels
from tiny_model.batches import IGNORE, Batch, Collator, Item
from tiny_model.evaluate import held_out_items

MODEL = Path("models/tiny")
Rows = tuple[NDArray[np.float32], NDArray[np.float32]]  # main (N, H), deepstack (L, N, H)


def encode(encoder: Encoder, item: Item) -> Rows:
    """Embeddings of one item; a video is marked by a timestamp, whose value the tower does not see."""
    embeddings = encoder.encode([EdgeItem(item.patches, item.grid, (0.0,) if item.is_video else ())])
    return embeddings.image_embeds, embeddings.deepstack_embeds


@torch.inference_mode()
def answer_scores(model: Qwen3VLForConditionalGeneration, batch: Batch, rows: Rows) -> torch.Tensor:
    """Log probabilities of every answer token, (tokens, V)."""
    main, deepstack = (torch.from_numpy(part.astype(np.float32)) for part in rows)
    features = Features(pooler_output=[main], deepstack_features=[[level] for level in deepstack])
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        mm_encoder_outputs={"video" if batch.is_video else "image": features},
        use_cache=False,
    ).logits
    return logits[batch.labels != IGNORE].double().log_softmax(-1)


def compare(expected: torch.Tensor, got: torch.Tensor, labels: torch.Tensor) -> tuple[float, int, int]:
    """Summed divergence in nats, tokens whose arg max changed, and tokens that were right before and are not now."""
    divergence = (expected.exp() * (expected - got)).sum(-1).sum().item()
    before, now = expected.argmax(-1), got.argmax(-1)
    return divergence, int((before != now).sum()), int(((before == labels) & (now != labels)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer changes of the bundled model by precision.")
    parser.add_argument("--per-kind", type=int, default=40, help="held-out questions of every kind")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = Qwen3VLForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()
    collate = Collator(Tokenizer.from_file(str(MODEL / "tokenizer.json")))
    items = held_out_items(args.per_kind)
    batches = [collate([item]) for item in items]
    rows_of: dict[str, list[Rows]] = {}
    megabytes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            out = Path(folder) / precision
            command = [sys.executable, "-m", "export.vision", MODEL, out, "--precision", precision]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            encoder = Encoder.from_bundle(out, threads=1)
            rows_of[precision] = [encode(encoder, item) for item in items]
            megabytes[precision] = sum(path.stat().st_size for path in out.glob("vision.onnx*")) / 1e6
    rows_of["fp32, sent as fp16"] = [(m.astype(np.float16), d.astype(np.float16)) for m, d in rows_of["fp32"]]  # type: ignore[misc]
    expected = [answer_scores(model, batch, rows) for batch, rows in zip(batches, rows_of["fp32"], strict=True)]
    num_tokens, table = sum(len(scores) for scores in expected), {}
    for name, all_rows in rows_of.items():
        sums = np.zeros(3)
        for batch, rows, reference in zip(batches, all_rows, expected, strict=True):
            labels = batch.labels[batch.labels != IGNORE]
            sums += compare(reference, answer_scores(model, batch, rows), labels)
        table[name] = {
            "mean_divergence_nats": float(f"{max(sums[0], 0) / num_tokens:.3g}"),
            "changed_per_thousand": round(1000 * sums[1] / num_tokens, 2),
            "lost_per_thousand": round(1000 * sums[2] / num_tokens, 2),
            "graph_mb": round(megabytes.get(name, megabytes["fp32"]), 2),
        }
        print(f"{name:20} {json.dumps(table[name])}", flush=True)
    result = {
        "benchmark": "precisions",
        "model": MODEL.name,
        "machine": machine(),
        "kernels": kernels.instructions(),
        "items": len(items),
        "answer_tokens": num_tokens,
        "precisions": table,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
