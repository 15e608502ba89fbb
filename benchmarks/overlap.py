"""What encoding ahead brings in pictures a second: `python -m benchmarks.overlap`.

A real Triton has one core of this machine and the device's part another one, as two machines would. One by one, a picture
takes the time of its encoding plus that of its answer; ahead, it takes the longer of the two, so the ratio lies below 2
and is best where both take as long. The bundled model's answers are short; the other model has random weights and sizes
with which both sides take about as long.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.answers import MODEL
from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from edge_runtime.commands import overlap
from edge_runtime.commands.bench import add_arguments
from edge_runtime.pipeline import Pipeline
from edge_runtime.tower.encoder import Encoder
from export.language import export_language
from export.vision import export_vision
from serving.settings import Settings
from serving.triton.launcher import TritonServer

SIDES = {"tiny": 256, "random": 448}  # of the pictures, in pixels
VISION = {"depth": 6, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072, "out_hidden_size": 512}
TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def write_random(folder: Path) -> None:
    """A checkpoint of random weights around the small files of the bundled model."""
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.safetensors", "evaluation.json"))
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= VISION
    config["text_config"] |= TEXT
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    model = transformers.AutoModelForImageTextToText.from_config(transformers.AutoConfig.from_pretrained(folder))
    model.to(torch.bfloat16).save_pretrained(folder)


def measured(name: str, answers: int, folder: Path, cores: list[int]) -> dict[str, Any]:
    """One model's row."""
    checkpoint = MODEL
    if name == "random":
        checkpoint = folder / "checkpoint"
        write_random(checkpoint)
    export_vision(str(checkpoint), folder / "bundle")
    export_language(str(checkpoint), folder / "language", bundle=folder / "bundle")
    os.sched_setaffinity(0, {cores[1]})  # the server's processes inherit it
    with TritonServer(Settings(model=str(folder / "language"), num_threads=1)) as server:
        os.sched_setaffinity(0, {cores[0]})
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        args = parser.parse_args(["--size", str(SIDES[name]), "--answers", str(answers), "--triton", server.grpc_url])
        row = overlap.measure(Pipeline(Encoder.from_bundle(folder / "bundle", threads=1)), args)
    os.sched_setaffinity(0, set(cores))
    return {"model": name, "picture": f"{SIDES[name]}x{SIDES[name]}", **row}


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures a second with the next picture encoded ahead.")
    parser.add_argument("--models", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--answers", type=int, default=6, help="pictures of a round")
    add_out(parser)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    rows = []
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(name, args.answers, Path(folder), cores))
            print(json.dumps(rows[-1]), flush=True)
    finish({"benchmark": "overlap", "machine": machine(), "rows": rows}, args.out)


if __name__ == "__main__":
    main()
