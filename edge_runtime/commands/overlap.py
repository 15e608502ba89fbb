"""Pictures a second with a server, one after the other and with the next one encoded ahead: `bench --answers`."""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from contract.sampling import Sampling
from edge_runtime.ahead import made_ahead
from edge_runtime.commands.server import open_client
from edge_runtime.pipeline import Pipeline
from edge_runtime.prompts.chat_template import Message
from edge_runtime.request import Request

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

TOKENS = 32  # of an answer, at most
ROUNDS = 3  # of both ways in turns, behind one that warms up


def measure(pipeline: Pipeline, args: argparse.Namespace) -> dict[str, Any]:
    """Ask about `args.answers` noise pictures at a time, which nobody has seen before; medians of the rounds.

    pictures_per_s counts from the first picture to the end of the last answer. wait_ms is the median time from the end
    of one answer to the first token of the next: with a picture encoded ahead, what is left of the tower's time.

    Raises:
        Unavailable, DeadlineExceeded, ServerError, InvalidInput, NotFound: as the clients.
    """
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with open_client(args) as client:
        for _ in range(ROUNDS + 1):
            for is_ahead, rounds in found.items():
                rounds.append(_round(pipeline, client, args.answers, args.size, is_ahead))
    speeds = {way: statistics.median(speed for speed, _ in rounds[1:]) for way, rounds in found.items()}
    ratios = [after[0] / before[0] for before, after in zip(found[False][1:], found[True][1:], strict=True)]
    waits = {way: statistics.median(wait for _, wait in rounds[1:]) for way, rounds in found.items()}
    return {
        "answers": args.answers,
        "pictures_per_s": {"one by one": round(speeds[False], 3), "ahead": round(speeds[True], 3)},
        "wait_ms": {"one by one": round(waits[False] * 1e3, 2), "ahead": round(waits[True] * 1e3, 2)},
        "median_ratio": round(statistics.median(ratios), 3),
    }


def _round(
    pipeline: Pipeline, client: "GrpcClient | HttpClient", count: int, size: int, is_ahead: bool
) -> tuple[float, float]:
    """Pictures a second, and the median seconds that somebody waits for a first token."""
    chats = [_chat(size) for _ in range(count)]
    sampling, waits = Sampling(max_tokens=TOKENS), list[float]()
    begun = ended = time.perf_counter()
    for request in _ahead(pipeline, chats) if is_ahead else map(pipeline.request, chats):
        first = None
        with closing(client.stream(request, sampling)) as deltas:
            for _ in deltas:
                first = first or time.perf_counter()
        waits.append((first or time.perf_counter()) - ended)
        ended = time.perf_counter()
    return count / (ended - begun), statistics.median(waits)


def _ahead(pipeline: Pipeline, chats: list[list[Message]]) -> Iterator[Request]:
    return (future.result() for future in made_ahead(pipeline.request, chats))


def _chat(size: int) -> list[Message]:
    picture = np.random.default_rng().integers(0, 256, (size, size, 3), np.uint8)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "Describe the image."}]
    return [{"role": "user", "content": content}]
