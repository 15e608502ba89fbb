"""bench: how long this device takes to load a bundle and to encode, and how near its ceiling it is, as a JSON line."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from contract.errors import InvalidInput
from contract.manifest import INTEGERS
from edge_runtime.commands import overlap, uplink
from edge_runtime.commands.ceiling import count_work, peak_rates
from edge_runtime.commands.device import open_encoder
from edge_runtime.commands.server import add_server_arguments
from edge_runtime.encoded_item import EncodedItem
from edge_runtime.items.item import Item
from edge_runtime.items.jpeg import jpeg_bytes
from edge_runtime.pipeline import DEVICE_MAX_PIXELS, Pipeline
from edge_runtime.tower import kernels
from edge_runtime.tower.encoder import Embeddings, Encoder
from edge_runtime.tower.processor import instruction_sets, processor_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=512, help="side of the pictures, in pixels (default %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="pictures in one call (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls after one that warms up (default %(default)s)")  # fmt: skip
    parser.add_argument("--max-pixels", type=int, default=DEVICE_MAX_PIXELS, help="as for encode (default %(default)s)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the figures there, with the processor's name, to send to the project")  # fmt: skip
    parser.add_argument("--uplink", type=float, metavar="MBIT", help="also print what each codec takes on an uplink of so many Mbit/s")  # fmt: skip
    parser.add_argument("--answers", type=int, metavar="N", help="also ask the server of --triton about N new pictures, one by one and with the next encoded ahead")  # fmt: skip
    add_server_arguments(parser)
    parser.set_defaults(run=run)


def peak_rss_bytes() -> int | None:
    """The most bytes of memory that this process has held; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run(args: argparse.Namespace) -> None:
    """Load, encode noise pictures once to warm up, then time `repeats` calls without a cache, and print the medians:
    for people, except with --json, and then as one JSON line.

    share_of_ceiling is the time that the counted work needs at the rates of onnxruntime's plain products (8-bit ones
    for the layers of an int8 or int4 bundle, float32 for all else) over the measured time; the project's own kernels
    can pass 1.

    Raises:
        InvalidInput: an argument is out of its range, or the folder of --report does not exist.
        BundleError: the bundle cannot be opened.
        Unavailable, DeadlineExceeded, ServerError, NotFound: as the clients, with --answers.
    """
    _check(args)
    started = time.perf_counter()
    encoder = open_encoder(args)
    load_ms = (time.perf_counter() - started) * 1e3
    runs = _timed(encoder, args)
    report = _speed(encoder, runs, load_ms, args) | _device(encoder)
    if args.uplink is not None:
        main, deepstack = runs.embeddings.by_item()[0]
        item = EncodedItem(False, runs.item.grid_thw, main, deepstack, numbers=encoder.bundle.numbers)
        rows = uplink.table(item, runs.median_s / args.batch, args.uplink)
        jpeg = jpeg_bytes(runs.item, encoder.bundle.manifest.card)
        report |= {"uplink_mbit_s": args.uplink, "codecs": rows, "jpeg_bytes": jpeg}
        if not args.json:
            print(uplink.text(rows, args.uplink))
    if args.answers is not None:
        report["overlap"] = overlap.measure(Pipeline(encoder, max_pixels=args.max_pixels or None), args)
    if args.report:
        args.report.write_text(json.dumps(report, indent=2) + "\n")
    if not args.json:
        for name, value in report.items():
            if name != "codecs":
                print(f"{name:20} {value}")
    print(json.dumps(report))


def _check(args: argparse.Namespace) -> None:
    for name in ("size", "batch", "repeats", "answers"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InvalidInput(f"--{name} is {value}, a whole number from 1 is expected")
    if args.uplink is not None and not 0 < args.uplink < float("inf"):
        raise InvalidInput(f"--uplink is {args.uplink}, a number of Mbit/s above 0 is expected")
    if args.report and not args.report.parent.is_dir():
        raise InvalidInput(f"--report is {args.report}, and {args.report.parent} is no folder: make it first")


@dataclass(frozen=True)
class _Runs:
    """The same pictures, prepared and encoded again and again; the first run warms up.

    Attributes:
        item: the first picture; embeddings: the rows of all.
        preparing_s, encoding_s: seconds of every run.
        peak_rss: as peak_rss_bytes gives it after the last run.
    """

    item: Item
    embeddings: Embeddings
    preparing_s: list[float]
    encoding_s: list[float]
    peak_rss: int | None

    @property
    def median_s(self) -> float:
        return statistics.median(self.encoding_s[1:])


def _timed(encoder: Encoder, args: argparse.Namespace) -> _Runs:
    pipeline, random = Pipeline(encoder, max_pixels=args.max_pixels or None), np.random.default_rng(0)
    pictures = [random.integers(0, 256, (args.size, args.size, 3), np.uint8) for _ in range(args.batch)]
    messages = [{"role": "user", "content": [{"type": "image", "image": picture} for picture in pictures]}]
    preparing, encoding = list[float](), list[float]()
    for _ in range(args.repeats + 1):
        begun = time.perf_counter()
        items = pipeline.items(messages)
        prepared = time.perf_counter()
        embeddings = encoder.encode(items)
        encoding.append(time.perf_counter() - prepared)
        preparing.append(prepared - begun)
    return _Runs(items[0], embeddings, preparing, encoding, peak_rss_bytes())


def _speed(encoder: Encoder, runs: _Runs, load_ms: float, args: argparse.Namespace) -> dict[str, Any]:
    manifest, seconds, embeddings = encoder.bundle.manifest, runs.median_s, runs.embeddings
    products, attention = count_work(encoder.bundle.graph, runs.item.tower_thw, manifest.card.patch_width)
    fp32_rate, int8_rate = peak_rates(args.threads)
    product_rate = int8_rate if manifest.precision in INTEGERS else fp32_rate
    least = args.batch * (products / product_rate + attention / fp32_rate)
    return {
        "picture": f"{args.size}x{args.size}",
        "grid_thw": embeddings.grid_thw[0].tolist(),
        "batch": args.batch,
        "provider": args.provider,
        "ran": dict(Counter(embeddings.ran)),
        "threads": args.threads,
        "precision": manifest.precision,
        "load_ms": round(load_ms, 2),
        "first_embedding_ms": round(load_ms + (runs.preparing_s[0] + runs.encoding_s[0]) * 1e3, 2),
        "prepare_ms": round(statistics.median(runs.preparing_s[1:]) * 1e3, 2),
        "encode_ms": round(seconds * 1e3, 2),
        "encode_ms_best": round(min(runs.encoding_s[1:]) * 1e3, 2),
        "pictures_per_s": round(args.batch / seconds, 3),
        "rows_per_s": round(len(embeddings.image_embeds) / seconds, 1),
        "gigaops_per_picture": round((products + attention) / 1e9, 2),
        "gigaops_per_s": round(args.batch * (products + attention) / seconds / 1e9, 1),
        "ceiling_fp32_gigaops_per_s": round(fp32_rate / 1e9, 1),
        "ceiling_int8_gigaops_per_s": round(int8_rate / 1e9, 1),
        "share_of_ceiling": round(least / seconds, 3),
        "peak_rss_bytes": runs.peak_rss,
    }


def _device(encoder: Encoder) -> dict[str, Any]:
    return {
        "weight_bytes": sum(path.stat().st_size for path in encoder.bundle.folder.glob("vision.onnx*")),
        "machine": platform.machine(),
        "instruction_sets": instruction_sets(),
        "own_kernels": kernels.instructions(),
        "has_matrix_tiles": kernels.has_matrix_tiles(),
        "multiplies_bf16": kernels.multiplies_bf16(),
        "onnxruntime": onnxruntime.__version__,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }
