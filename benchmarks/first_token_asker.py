"""The client half of benchmarks.first_token: for each line it asks, and prints how long the first answer took.

It runs in the tree of any build, so it uses only what all builds have. Arguments: kind, url, certificate, facts as
JSON.
"""

import json
import sys
import time
from typing import Any

import numpy as np

from edge_runtime import GrpcClient, HttpClient, Request, Sampling, Tls
from edge_runtime.encoded_item import EncodedItem


def request(facts: dict[str, Any], side: int, seed: int) -> Request:
    """A picture of noise and a question of four words."""
    random, rows = np.random.default_rng(seed), side * side // 4
    item = EncodedItem(
        False,
        (1, side, side),
        random.standard_normal((rows, facts["hidden"]), np.float32),
        random.standard_normal((facts["levels"], rows, facts["hidden"]), np.float32),
    )
    input_ids = np.concatenate([np.full(rows, facts["pad"], np.int64), np.arange(20, 24, dtype=np.int64)])
    return Request(input_ids, (item,), facts["fingerprint"])


def main(kind: str, url: str, chain: str, facts_json: str) -> None:
    facts = json.loads(facts_json)
    client: Any = {"grpc": GrpcClient, "http": HttpClient}[kind](url, tls=Tls(chain) if chain else None)
    seed = time.time_ns() % 2**32
    known = request(facts, 8, seed)
    one, keep = Sampling(max_tokens=1), Sampling(max_tokens=0)
    list(client.stream(known, one))
    for line in sys.stdin:
        seed += 1
        if line.strip() == "question":
            asked, sampling = known, one
        else:
            asked, sampling = request(facts, facts["upload_side"], seed), keep
            asked.keys("fp16")  # this hashes and converts before the clock starts
        started = time.perf_counter()
        if kind == "http" and sampling is keep:
            client.infer(asked, keep)
            ms = (time.perf_counter() - started) * 1e3
        else:
            pieces = client.stream(asked, sampling)
            next(pieces)
            ms = (time.perf_counter() - started) * 1e3
            list(pieces)
        print(ms, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
