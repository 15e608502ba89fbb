"""The device as the command line describes it: bundle, cache, budgets, and whether it may read URLs."""

import argparse
import os
import sys
import time

from edge_runtime.items.workers import DecodingLimits
from edge_runtime.media.fetch import Fetcher
from edge_runtime.pipeline import DEVICE_MAX_PIXELS, Pipeline
from edge_runtime.reuse.embedding_cache import EmbeddingCache
from edge_runtime.tower import kernels
from edge_runtime.tower.encoder import Encoder
from edge_runtime.tower.session import CPU


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every verb."""
    parser.add_argument("--bundle", default=os.environ.get("EDGE_VLM_BUNDLE", "bundle"), help="folder python -m export.vision wrote ($EDGE_VLM_BUNDLE, else ./bundle)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=0, help="cores for the tower, 0 for all")
    parser.add_argument(
        "--provider",
        default="CPUExecutionProvider",
        help="onnxruntime execution provider, or an accelerator for which the bundle has graphs: static",
    )
    parser.add_argument(
        "--allow-cpu-nodes", action="store_true", help="let an accelerator leave nodes of its graphs on the processor"
    )
    parser.add_argument("--low-memory", action="store_true", help="keep the weights in the mapped file: less memory, more time")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of text, errors too")


def add_media_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that encode pictures and videos."""
    parser.add_argument("--max-pixels", type=int, default=DEVICE_MAX_PIXELS, help="most pixels of a picture or frame after resizing (default %(default)s; 0: what the bundle allows)")  # fmt: skip
    parser.add_argument("--max-tiles", type=int, metavar="N", help="refuse pictures of more tiles (default: what the checkpoint's processor makes at most)")  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="folder that keeps embeddings between runs, up to 1 GiB")
    parser.add_argument("--fetch", action="store_true", help="allow http:// and https:// media from public addresses")
    parser.add_argument("--rows", default="copy", metavar="RULE", help="which rows of a video travel: all, equal, copy (hardly changed ones are not sent again), copy:0.1, or drop:0.5 (changes answers)")  # fmt: skip


def _progress(done: int, total: int) -> None:
    end = "\r\033[K" if done == total else ""
    print(f"\rframe {done} of {total}{end}", end="", file=sys.stderr, flush=True)


def open_encoder(args: argparse.Namespace) -> Encoder:
    """The encoder of the arguments.

    Raises:
        BundleError, InvalidInput: as open_pipeline.
    """
    return Encoder.from_bundle(
        args.bundle,
        threads=args.threads,
        provider=args.provider,
        low_memory=args.low_memory,
        allow_cpu_nodes=args.allow_cpu_nodes,
    )


def open_encoder_aloud(args: argparse.Namespace) -> Encoder:
    """The encoder of the arguments, for a command that stays; it writes to standard error what it loads.

    Raises:
        BundleError, InvalidInput: as open_pipeline.
    """
    print(f"loading {args.bundle}", file=sys.stderr, flush=True)
    began, encoder = time.perf_counter(), open_encoder(args)
    manifest, weights = encoder.bundle.manifest, encoder.bundle.weights
    megabytes = weights.stat().st_size / 1e6
    own = kernels.instructions() if args.provider == CPU else None
    where = f"kernels {own}" if own else args.provider
    print(
        f"loaded in {time.perf_counter() - began:.1f} s: tower of {manifest.card.family}, {manifest.precision}, "
        f"{megabytes:.0f} MB, {where}; answers come from {args.triton}",
        file=sys.stderr,
        flush=True,
    )
    return encoder


def open_pipeline(
    args: argparse.Namespace, decoding: DecodingLimits | None = None, encoder: Encoder | None = None
) -> Pipeline:
    """The pipeline of the arguments; it keeps embeddings in memory, and in the folder of --cache where there is one.

    Args:
        decoding: limits of the processes that decode; None decodes in this process.
        encoder: the encoder, where it is open already.

    Raises:
        BundleError, InvalidInput: the bundle cannot be opened, or an argument is out of its range.
    """
    return Pipeline(
        encoder or open_encoder(args),
        cache=EmbeddingCache(folder=args.cache),
        max_pixels=args.max_pixels or None,
        max_tiles=args.max_tiles,
        fetch=Fetcher() if args.fetch else None,
        rows=args.rows,
        progress=_progress if sys.stderr.isatty() and decoding is None else None,
        decoding=decoding,
    )
