"""embed: vectors of pictures and texts to a file or a vector store, and a table of their cosines.

The bundle of an embedding model with a text tower needs no server. The bundle of a language model needs one, which runs
that model: --triton.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contract.embedder import NAME as EMBEDDER
from contract.errors import InvalidInput
from edge_runtime.commands.device import add_media_arguments, open_pipeline
from edge_runtime.commands.media import check_files
from edge_runtime.commands.output_file import output_file
from edge_runtime.commands.safetensors_file import write_safetensors
from edge_runtime.commands.server import add_server_arguments, open_client
from edge_runtime.embedder import Embedder
from edge_runtime.served_embedder import ServedEmbedder
from edge_runtime.vectors import Vectors, cosines, shortened

STORES = (".db", ".sqlite", ".sqlite3")  # names of vector stores end so
SHOWN = 24  # characters of a name in the table


class Embeds(Protocol):
    """Either kind of model: it makes vectors (n, W)."""

    def pictures(self, pictures: list[str]) -> Vectors: ...
    def texts(self, texts: list[str]) -> Vectors: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="picture files")
    parser.add_argument("--text", nargs="+", default=[], metavar="TEXT", help="texts, such as the names of classes")
    parser.add_argument(
        "--out",
        type=Path,
        help="file with image_embeds, text_embeds and cosines, .npz or .safetensors; or .db, a vector store, which is added to",
    )
    parser.add_argument("--dimensions", type=int, metavar="N", help="keep the first N values of each vector, its length then 1")  # fmt: skip
    parser.add_argument("--instruction", metavar="TEXT", help="what the vectors are for; only a served model reads it")
    add_media_arguments(parser)
    add_server_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Embed, write where --out says so, and print the cosine of each picture with each text.

    Raises:
        BundleError, MediaError: as Embedder and Pipeline.
        Unavailable, DeadlineExceeded, ServerError: as ServedEmbedder.
        InvalidInput: as these; or there is no picture and no text, or the file cannot be written.
        MissingExtra: the file is a vector store, and its packages are not installed.
    """
    if not args.pictures and not args.text:
        raise InvalidInput("nothing was given: name pictures, texts behind --text, or both")
    check_files(args.pictures)
    is_store = args.out is not None and args.out.suffix in STORES
    if is_store:
        _check_store(args.out)
    with _opened(args) as (embedder, model):
        started = time.perf_counter()
        pictures = embedder.pictures(args.pictures)
        pictures_ms = (time.perf_counter() - started) * 1e3
        texts = embedder.texts(args.text)
        texts_ms = (time.perf_counter() - started) * 1e3 - pictures_ms
    told: dict[str, Any] = {}
    if isinstance(embedder, Embedder):
        told["scores"] = embedder.scores(pictures, texts).tolist()
    if args.dimensions is not None:
        pictures, texts = (shortened(vectors, args.dimensions) for vectors in (pictures, texts))
    table = cosines(pictures, texts)
    if is_store:
        from edge_runtime.vector_store import VectorStore  # here, because it needs an extra

        with VectorStore(args.out) as store:
            store.add("picture", args.pictures, pictures, model)
            store.add("text", args.text, texts, model)
    elif args.out is not None:
        arrays: dict[str, Any] = {"image_embeds": pictures, "text_embeds": texts, "cosines": table}
        with output_file(args.out) as file:
            write_safetensors(file, arrays) if args.out.suffix == ".safetensors" else np.savez(file, **arrays)
    if not args.json:
        _print(args.pictures, args.text, table)
        place = f"{args.out}: " if args.out else ""
        print(f"{place}{len(pictures)} pictures, {len(texts)} texts, vectors of {texts.shape[1]} values")
    return told | {
        "out": None if args.out is None else str(args.out),
        "width": texts.shape[1],
        "cosines": table.tolist(),
        "pictures_ms": round(pictures_ms, 2),
        "texts_ms": round(texts_ms, 2),
    }


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[tuple[Embeds, str]]:
    """The model of the bundle, on the device alone or with a server, and the fingerprint of its tower."""
    if (Path(args.bundle) / EMBEDDER).exists():
        if args.instruction is not None:
            raise InvalidInput("--instruction is for a served model, and this bundle's model reads none: leave it out")
        embedder = Embedder.from_bundle(
            args.bundle, threads=args.threads, provider=args.provider, low_memory=args.low_memory
        )
        yield embedder, embedder.manifest.encoder_fingerprint
        return
    pipeline = open_pipeline(args)
    with open_client(args) as client:
        yield (
            ServedEmbedder(pipeline, client, args.instruction),
            pipeline.encoder.bundle.manifest.card.encoder_fingerprint,
        )


def _check_store(out: Path) -> None:
    """Tell before the tower runs why --out can be no vector store. This makes no file: the tower may fail."""
    from edge_runtime.vector_store import VectorStore  # here, because it needs an extra

    if out.exists():
        with VectorStore(out):
            return
    if not os.access(out.parent, os.W_OK):
        raise InvalidInput(f"{out} cannot be written: {out.parent} is no folder that you may write to")


def _print(pictures: list[str], texts: list[str], table: Any) -> None:
    """Print one line for each picture, with one column for each text."""
    if not pictures or not texts:
        return
    print(" " * SHOWN + "".join(f"{text[:SHOWN]:>{SHOWN + 2}}" for text in texts))
    for name, row in zip(pictures, table, strict=True):
        print(f"{Path(name).name[:SHOWN]:<{SHOWN}}" + "".join(f"{value:>{SHOWN + 2}.4f}" for value in row))
