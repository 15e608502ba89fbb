"""How embeddings reach a server on the same machine: gRPC and HTTP, fp16 and int8, in the message and in shared memory.

The checkpoint has random weights and the width of the 2B. `max_tokens` 0 keeps the items and computes nothing, so this
times the way alone: the client converts and sends, the server checks and names. The floor is what no way can leave out:
one conversion to fp16 and one SHA-256 of the result, in this process. Every upload is new content; rounds are
interleaved; the last line is JSON.

    python -m benchmarks.transport --out benchmarks/results/transport.json
"""

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np

from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from benchmarks.serving_checkpoint import random_server
from contract.card import ModelCard
from edge_runtime import GrpcClient, HttpClient, Request, Sampling
from edge_runtime.encoded_item import EncodedItem
from serving.triton.launcher import TritonServer

SIDES = (16, 32)  # patches; a picture of 256 or 512 pixels a side
PICTURES = 3
KEEP = Sampling(max_tokens=0)
WIDE = {"hidden_size": 2048, "num_hidden_layers": 4, "intermediate_size": 256}  # embeddings of the 2B, and little else


def request(card: ModelCard, side: int, seed: int) -> Request:
    """Pictures of noise that no client has sent before."""
    random, rows = np.random.default_rng(seed), side * side // card.merge_size**2
    items = tuple(
        EncodedItem(
            False,
            (1, side, side),
            random.standard_normal((rows, card.hidden_size), np.float32),
            random.standard_normal((card.num_deepstack_levels, rows, card.hidden_size), np.float32),
        )
        for _ in range(PICTURES)
    )
    pads = np.full(rows, card.image_token_id, np.int64)
    frame = [np.array([token], np.int64) for token in (card.vision_start_token_id, card.vision_end_token_id)]
    input_ids = np.concatenate([part for _ in items for part in (frame[0], pads, frame[1])])
    return Request(input_ids, items, card.encoder_fingerprint)


def floor(asked: Request) -> None:
    """Convert and hash."""
    for item in asked.items:
        digest = hashlib.sha256()
        for array in item.wire("fp16"):
            digest.update(np.ascontiguousarray(array).data)
        digest.hexdigest()


def streamed(client: GrpcClient, asked: Request) -> object:
    return list(client.stream(asked, KEEP))


def whole(client: HttpClient, asked: Request) -> object:
    return client.infer(asked, KEEP)


def measure(server: TritonServer, rounds: int) -> list[dict[str, object]]:
    """One row for each size: median milliseconds of every way."""
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        ways: dict[str, Callable[[Request], object]] = {"floor": floor}
        for kind in ("fp16", "int8"):
            for shared in (False, True):
                name = f"{kind}{' shared' if shared else ''}"
                how = {"precision": kind, "shared_memory": shared}
                grpc = stack.enter_context(GrpcClient(server.grpc_url, **how))  # type: ignore[arg-type]
                http = stack.enter_context(HttpClient(server.http_url, **how))  # type: ignore[arg-type]
                ways[f"grpc {name}"] = partial(streamed, grpc)
                ways[f"http {name}"] = partial(whole, http)
        keyed = stack.enter_context(GrpcClient(server.grpc_url))
        ways["grpc key"] = lambda asked: list(keyed.stream(asked, KEEP))
        for side in SIDES:
            times: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(-2, rounds):
                for place, (name, send) in enumerate(ways.items()):
                    asked = request(server.card, side, 1000 * (turn + 2) + place)
                    if name == "grpc key":
                        send(asked)  # this sends and hashes once: what follows is the second turn
                        asked.keys("fp16")
                    started = time.perf_counter()
                    send(asked)
                    if turn >= 0:
                        times[name].append((time.perf_counter() - started) * 1e3)
            num_bytes = sum(2 * (item.main.size + item.deepstack.size) for item in asked.items)
            medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
            ratios = {
                name: round(statistics.median(a / b for a, b in zip(values, times["grpc fp16"], strict=True)), 2)
                for name, values in times.items()
            }
            facts = {"pictures": PICTURES, "side_patches": side, "fp16_bytes": num_bytes}
            rows.append({**facts, "median_ms": medians, "median_ratio_to_grpc_fp16": ratios})
            print(
                f"{num_bytes / 2**20:6.1f} MiB  " + "  ".join(f"{name} {ms}" for name, ms in medians.items()),
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the ways embeddings travel.")
    parser.add_argument("--rounds", type=int, default=15)
    add_out(parser)
    args = parser.parse_args()
    with random_server(WIDE) as server:
        rows = measure(server, args.rounds)
    facts = {"embedding_width": WIDE["hidden_size"], "machine": machine()}
    result = {"benchmark": "transport", **facts, "rows": rows}
    finish(result, args.out)


if __name__ == "__main__":
    main()
