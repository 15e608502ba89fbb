"""`make precisions`: what a tower's precision costs in answers, on the bundled model.

Exact match hardly sees quantisation. What does is the distribution over the answer's tokens: its divergence from that
of the fp32 tower, and how many tokens out of a thousand would have been another. Each codec of the upload has a row,
too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.answers import MODEL, Answers, Rows, encode
from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from contract.codecs import int8
from contract.codecs.codec import CODECS
from contract.codecs.numbers import CodecNumbers
from contract.manifest import PRECISIONS
from edge_runtime import Encoder
from edge_runtime.row_rule import RowRule
from edge_runtime.tower import kernels
from tiny_model.evaluate import held_out_items


def travelled(name: str, rows: Rows, numbers: CodecNumbers) -> tuple[Rows, int]:
    """Rows as a server gets them from a codec, and the bytes that travelled."""
    if name == "fp16":
        half = rows[0].astype(np.float16), rows[1].astype(np.float16)
        return half, sum(part.nbytes for part in half)
    if name == "int8":
        arrays = int8.quantise(*rows)
        return int8.dequantise(*arrays), sum(part.nbytes for part in arrays)
    found = CODECS[name].encode(*rows, numbers)
    return CODECS[name].decode(*found, numbers), sum(part.nbytes for part in found)


def copied(rule: RowRule, rows: Rows, num_frames: int) -> tuple[Rows, int]:
    """Rows in fp16 as a server fills them, and the bytes that travelled; num_frames is 1 for a picture."""
    half = rows[0].astype(np.float16), rows[1].astype(np.float16)
    masks = rule.masks(*rows, num_frames)
    if masks is None:
        return half, sum(part.nbytes for part in half)
    sent = masks.is_sent.ravel()
    some = half[0][sent], half[1][:, sent]
    return masks.filled(some), sum(part.nbytes for part in some) + masks.copied.size


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer changes of the bundled model by precision.")
    parser.add_argument("--per-kind", type=int, default=40, help="held-out questions of every kind")
    add_out(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    items = held_out_items(args.per_kind)
    rows_of: dict[str, list[Rows]] = {}
    facts: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            out = Path(folder) / precision
            command: list[str | Path] = [sys.executable, "-m", "export.vision", MODEL, out, "--precision", precision]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            encoder = Encoder.from_bundle(out, threads=1)
            rows_of[precision] = [encode(encoder, item) for item in items]
            megabytes = sum(path.stat().st_size for path in out.glob("vision.onnx*")) / 1e6
            facts[precision] = {"graph_mb": round(megabytes, 2)}
            if precision == "fp32":
                numbers = encoder.bundle.numbers
    assert numbers is not None
    for name in ("fp16", "int8", *numbers.names):
        sent = [travelled(name, rows, numbers) for rows in rows_of["fp32"]]
        rows_of[f"fp32, sent as {name}"] = [rows for rows, _ in sent]
        num_rows = sum(len(main) for main, _ in rows_of["fp32"])
        facts[f"fp32, sent as {name}"] = {"bytes_a_row": round(sum(size for _, size in sent) / num_rows, 1)}
    frames = [item.grid[0] if item.is_video else 1 for item in items]
    for name in ("copy", "copy:0.1"):
        sent = [copied(RowRule.of(name), *pair) for pair in zip(rows_of["fp32"], frames, strict=True)]
        rows_of[f"fp32, sent as fp16, rows {name}"] = [rows for rows, _ in sent]
        facts[f"fp32, sent as fp16, rows {name}"] = {"bytes_a_row": round(sum(n for _, n in sent) / num_rows, 1)}
    answers, table = Answers(items, rows_of["fp32"]), {}
    for name, all_rows in rows_of.items():
        table[name] = asdict(answers.cost(all_rows)) | facts[name]
        print(f"{name:20} {json.dumps(table[name])}", flush=True)
    result = {
        "benchmark": "precisions",
        "model": MODEL.name,
        "machine": machine(),
        "kernels": kernels.instructions(),
        "items": len(items),
        "answer_tokens": answers.num_tokens,
        "precisions": table,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
