"""encode: pictures and videos to a file of embeddings.

The file holds them twice: as the tower gives them, in float32, and under the wire contract's names with the encoder's
fingerprint, so that the file is what a request needs. In .safetensors the fingerprint is the format's metadata.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.commands.device import add_media_arguments, open_pipeline
from edge_runtime.commands.media import add_video_arguments, check_files, content_parts
from edge_runtime.commands.output_file import output_file
from edge_runtime.commands.safetensors_file import write_safetensors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("media", nargs="+", help="picture and video files, folders of frames, URLs with --fetch")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="file with image_embeds, deepstack_embeds, grid_thw in float32, and the wire contract's tensors",
    )
    parser.add_argument("--format", choices=["npz", "safetensors"], help="by default what the name of --out ends in, else npz")  # fmt: skip
    add_media_arguments(parser)
    add_video_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Encode all media together and write the file; it replaces an existing one when it is whole.

    Raises:
        BundleError, MediaError, InvalidInput: as Pipeline; or an option is for videos, and there is none, or the file cannot be
            written.
    """
    content = content_parts(args.media, args)
    check_files(args.media)
    pipeline = open_pipeline(args)
    prepared = pipeline.prepare([{"role": "user", "content": content}])
    started = time.perf_counter()
    encoded = pipeline.encode(prepared)
    encode_ms = (time.perf_counter() - started) * 1e3
    arrays: dict[str, Any] = {
        "image_embeds": np.concatenate([item.main for item in encoded.rows]),
        "deepstack_embeds": np.concatenate([item.deepstack for item in encoded.rows], axis=1),
        "grid_thw": np.array([item.grid_thw for item in encoded.rows], np.int64),
    }
    arrays |= {  # as the wire contract names them
        "vision_embeddings": arrays["image_embeds"].astype(np.float16),  # (N, H)
        "deepstack_embeddings": arrays["deepstack_embeds"].astype(np.float16),  # (L, N, H)
        "image_grid_thw": np.array([r.grid_thw for r in encoded.rows if not r.is_video], np.int64).reshape(-1, 3),
        "video_grid_thw": np.array([r.grid_thw for r in encoded.rows if r.is_video], np.int64).reshape(-1, 3),
    }
    facts = {"encoder_fingerprint": pipeline.encoder.bundle.manifest.card.encoder_fingerprint}
    form = args.format or ("safetensors" if args.out.suffix == ".safetensors" else "npz")
    with output_file(args.out) as file:
        if form == "safetensors":
            write_safetensors(file, arrays, facts)
        else:
            np.savez(file, **arrays | {name: np.array(text) for name, text in facts.items()})
    rows = arrays["image_embeds"].shape
    if not args.json:
        count = len(arrays["deepstack_embeds"])
        print(f"{args.out}: {rows[0]} rows of {rows[1]}, {count} deepstack levels, {encode_ms:.1f} ms")
    return {
        "out": str(args.out),
        "format": form,
        "rows": rows[0],
        "grid_thw": arrays["grid_thw"].tolist(),
        "timestamps": [list(item.timestamps) for item in encoded.items],
        "num_encoded": encoded.num_encoded,
        "ran": list(encoded.ran),
        "encode_ms": round(encode_ms, 2),
    }
