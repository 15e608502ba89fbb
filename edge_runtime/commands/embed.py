"""embed: vectors of pictures and texts to a file, and a table of their cosines. No server takes part."""

import argparse
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import InvalidInput
from edge_runtime.commands.safetensors_file import write_safetensors
from edge_runtime.embedder import Embedder, cosines

SHOWN = 24  # characters of a name in the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="picture files")
    parser.add_argument("--text", nargs="+", default=[], metavar="TEXT", help="texts, such as the names of classes")
    parser.add_argument(
        "--out", type=Path, help="file with image_embeds, text_embeds and cosines; .npz or .safetensors"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Embed, write where --out says so, and print the cosine of each picture with each text.

    Raises:
        BundleError, MediaError: as Embedder.
        InvalidInput: as Embedder; or there is no picture and no text, or the file cannot be written.
    """
    if not args.pictures and not args.text:
        raise InvalidInput("nothing was given: name pictures, texts behind --text, or both")
    embedder = Embedder.from_bundle(
        args.bundle, threads=args.threads, provider=args.provider, low_memory=args.low_memory
    )
    started = time.perf_counter()
    pictures = embedder.pictures(args.pictures)
    pictures_ms = (time.perf_counter() - started) * 1e3
    texts = embedder.texts(args.text)
    texts_ms = (time.perf_counter() - started) * 1e3 - pictures_ms
    table = cosines(pictures, texts)
    if args.out is not None:
        _write(args.out, {"image_embeds": pictures, "text_embeds": texts, "cosines": table})
    if not args.json:
        _print(args.pictures, args.text, table)
        place = f"{args.out}: " if args.out else ""
        print(f"{place}{len(pictures)} pictures, {len(texts)} texts, vectors of {embedder.manifest.width} values")
    return {
        "out": None if args.out is None else str(args.out),
        "width": embedder.manifest.width,
        "cosines": table.tolist(),
        "scores": embedder.scores(pictures, texts).tolist(),
        "pictures_ms": round(pictures_ms, 2),
        "texts_ms": round(texts_ms, 2),
    }


def _print(pictures: list[str], texts: list[str], table: Any) -> None:
    """Print one line for each picture, with one column for each text."""
    if not pictures or not texts:
        return
    print(" " * SHOWN + "".join(f"{text[:SHOWN]:>{SHOWN + 2}}" for text in texts))
    for name, row in zip(pictures, table, strict=True):
        print(f"{Path(name).name[:SHOWN]:<{SHOWN}}" + "".join(f"{value:>{SHOWN + 2}.4f}" for value in row))


def _write(out: Path, arrays: dict[str, Any]) -> None:
    """Write arrays to a file; the new file replaces an existing one when it is whole."""
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as file:
            write_safetensors(file, arrays) if out.suffix == ".safetensors" else np.savez(file, **arrays)
        part.replace(out)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InvalidInput(f"{out} cannot be written: {error.strerror}") from error
