"""`make bench-retrieval`: whether the bundled tower's rows find a picture again, without a language model.

A picture's vector is the mean of its rows. 200 drawn scenes are the gallery; each is asked for by a copy in another size
and as a JPEG, and by a darker one. recall@1 is the share of copies whose nearest picture is their own.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from edge_runtime import Encoder, Pipeline
from edge_runtime.vectors import cosines
from tiny_model.scenes import shapes_scene

MODEL = Path(__file__).parents[1] / "models" / "tiny"
SIZE, SMALLER, QUALITY = (160, 128), (128, 96), 60


def smaller_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.resize(SMALLER, Image.Resampling.BICUBIC).save(file, "JPEG", quality=QUALITY)
    return Image.open(file).convert("RGB")


def darker(image: Image.Image) -> Image.Image:
    return image.point(lambda value: value * 3 // 4)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {"smaller_jpeg": smaller_jpeg, "darker": darker}


def pooled(pipeline: Pipeline, images: list[Image.Image]) -> dict[str, NDArray[np.float32]]:
    """The mean row (n, H) of each picture: of the main rows, and of each deepstack level."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    for image in images:
        items = pipeline.items([{"role": "user", "content": [{"type": "image", "image": image}]}])
        main, deepstack = pipeline.encoder.encode(items).by_item()[0]  # (N, H), (L, N, H)
        for name, rows in {"main": main, **{f"level{i}": rows for i, rows in enumerate(deepstack)}}.items():
            found.setdefault(name, []).append(rows.mean(0))
    return {name: np.stack(rows) for name, rows in found.items()}


def recall(gallery: NDArray[np.float32], copies: NDArray[np.float32]) -> float:
    """The share of copies (n, H) whose nearest of the gallery (n, H) is their own, by the cosine of centred vectors."""
    middle = gallery.mean(0)
    nearest = cosines(copies - middle, gallery - middle).argmax(1)
    return float(np.mean(nearest == np.arange(len(gallery))))


def main() -> None:
    parser = argparse.ArgumentParser(description="recall@1 of the bundled tower's pooled rows.")
    parser.add_argument("--scenes", type=int, default=200)
    add_out(parser)
    args = parser.parse_args()
    scenes = [shapes_scene(Random(seed), *SIZE, 3).image for seed in range(args.scenes)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "export.vision", MODEL, f"{folder}/bundle"], check=True, capture_output=True
        )
        pipeline = Pipeline(Encoder.from_bundle(f"{folder}/bundle"))
        gallery = pooled(pipeline, scenes)
        asked = {name: pooled(pipeline, [copy(scene) for scene in scenes]) for name, copy in COPIES.items()}
    at_1 = {
        name: {level: round(recall(rows, copies[level]), 4) for level, rows in gallery.items()}
        for name, copies in asked.items()
    }
    finish({"machine": machine(), "scenes": args.scenes, "chance": 1 / args.scenes, "recall_at_1": at_1}, args.out)


if __name__ == "__main__":
    main()
