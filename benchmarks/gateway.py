"""`make bench-gateway`: what the gateway costs. The same questions go through it and through the runtime here.

Both ask the same Triton, in turns, about a picture that both have encoded before, so that what differs is the gateway:
HTTP, JSON, base64, its queue and its events. Then 32 clients ask at once, in waves, with the gateway's memory after
each. The last line is JSON; the budget is 3 ms a request and 0.2 ms a token.
"""

import argparse
import base64
import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from edge_runtime import EmbeddingCache, Encoder, GrpcClient, Pipeline, Sampling
from serving.settings import Settings
from serving.triton.launcher import TritonServer
from tiny_model.scenes import shapes_scene

QUESTION = "Describe the image."
BUDGET_MS = {"request": 3.0, "token": 0.2}
Times = tuple[float, list[float]]  # when the client asked, and when pieces came: a token each, or a few


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    shapes_scene(Random(seed), 160, 128, 3).image.save(file, "PNG")
    return file.getvalue()


def in_process(pipeline: Pipeline, client: GrpcClient, image: bytes, max_tokens: int) -> Times:
    begun = time.perf_counter()
    content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    request = pipeline.request([{"role": "user", "content": content}])
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
    return begun, [time.perf_counter() for delta in client.stream(request, sampling) for _ in delta.token_ids]


def body(image: bytes, max_tokens: int) -> bytes:
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    wishes = {"max_tokens": max_tokens, "ignore_eos": True, "stream": True, "logprobs": False}
    return json.dumps({"model": "edge_vlm", "messages": [{"role": "user", "content": content}], **wishes}).encode()


def events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def through_gateway(connection: http.client.HTTPConnection, image: bytes, max_tokens: int) -> Times:
    begun = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body(image, max_tokens), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"the gateway answers {answer.status}, 200 is expected: {answer.read().decode()}")
    came = []
    for event in events(answer):
        if event["choices"] and "role" not in (delta := event["choices"][0]["delta"]) and "content" in delta:
            came.append(time.perf_counter())
    return begun, came


def spread(values: list[float]) -> dict[str, float]:
    first, middle, last = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "quartile_1": round(first, 3), "quartile_3": round(last, 3)}


Ask = Callable[[int], Times]


def compared(
    in_process: Ask, gateway: Ask, rounds: int, max_tokens: int, of: Callable[[Times], float]
) -> dict[str, Any]:
    """A figure of both sides in milliseconds, and what the second side, the gateway, adds, over interleaved pairs.

    A busy machine only ever adds time, so beside the median of the pairs stands the difference of the fastest tenths.
    """
    for warm in (in_process, gateway) * 3:
        warm(max_tokens)
    pairs = [(of(in_process(max_tokens)) * 1e3, of(gateway(max_tokens)) * 1e3) for _ in range(rounds)]
    a, b = ([*side] for side in zip(*pairs, strict=True))
    fast = [statistics.mean(sorted(side)[: max(1, rounds // 10)]) for side in (a, b)]
    return {
        "rounds": rounds,
        "max_tokens": max_tokens,
        "in_process": spread(a),
        "gateway": spread(b),
        "added": spread([y - x for x, y in pairs]),
        "added_fastest_tenth": round(fast[1] - fast[0], 3),
    }


def rss_mb(pid: int, field: str) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field))
    return round(int(line.split()[1]) / 1024, 1)


def crowd(place: tuple[str, int], pid: int, callers: int, waves: int, max_tokens: int) -> dict[str, Any]:
    """Let `callers` clients ask at once, each about a picture of its own, all of them new in every wave."""

    def one(seed: int) -> int:
        connection = http.client.HTTPConnection(*place, timeout=300)
        try:
            return len(through_gateway(connection, picture(seed), max_tokens)[1])
        finally:
            connection.close()

    rows, seed = [], 1000
    for _ in range(waves):
        begun = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            tokens = sum(pool.map(one, range(seed, seed + callers)))
        seconds, seed = time.perf_counter() - begun, seed + callers
        rows.append(
            {"seconds": round(seconds, 2), "tokens_per_s": round(tokens / seconds), "rss_mb": rss_mb(pid, "VmRSS")}
        )
    return {"callers": callers, "max_tokens": max_tokens, "waves": rows, "peak_rss_mb": rss_mb(pid, "VmHWM")}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the gateway against the runtime in one process.")
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--max-tokens", type=int, default=100)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--waves", type=int, default=5)
    add_out(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for verb in ("vision", "language"):
            export = [sys.executable, "-m", f"export.{verb}", str(args.model), f"{folder}/{verb}"]
            subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        with TritonServer(Settings(model=f"{folder}/language", num_threads=1)) as server:
            result = measure(Path(folder) / "vision", server, args)
    result = {"benchmark": "gateway", "model": args.model.name, "machine": machine(), "budget_ms": BUDGET_MS} | result
    finish(result, args.out)


def measure(bundle: Path, server: TritonServer, args: argparse.Namespace) -> dict[str, Any]:
    serve = [sys.executable, "-m", "edge_runtime", "serve", "--bundle", bundle, "--triton", server.grpc_url]
    serve += ["--port", "0", "--threads", "1"]
    with subprocess.Popen(
        list(map(str, serve)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            parts = urlsplit(process.stdout.readline().strip())
            place = (parts.hostname or "", parts.port or 0)
            pipeline = Pipeline(Encoder.from_bundle(bundle, threads=1), cache=EmbeddingCache())
            connection, image = http.client.HTTPConnection(*place, timeout=60), picture(1)
            with GrpcClient(server.grpc_url) as client:
                ours, theirs = partial(in_process, pipeline, client, image), partial(through_gateway, connection, image)
                rows: dict[str, Any] = {
                    "request_ms": compared(ours, theirs, 5 * args.rounds, 2, lambda times: times[1][0] - times[0]),
                    # the whole answer over its tokens: single gaps are the scheduler's
                    "token_ms": compared(
                        ours, theirs, args.rounds, args.max_tokens,
                        lambda times: (times[1][-1] - times[1][0]) / (args.max_tokens - 1),
                    ),
                }  # fmt: skip
            connection.close()
            idle = rss_mb(process.pid, "VmRSS")
            rows["memory"] = {"before_rss_mb": idle} | crowd(
                place, process.pid, args.callers, args.waves, args.max_tokens
            )
        finally:
            process.terminate()
            process.wait(30)
    rows["load_average"] = round(os.getloadavg()[0], 1)
    return rows


if __name__ == "__main__":
    main()
