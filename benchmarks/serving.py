"""What the server adds to the engine, what a large request costs, what 1,000 requests leave in memory: `make bench-serving`.

Each figure has both sides in one run, interleaved round by round, and is a median. Overhead: the same checkpoint in an
engine of this process and behind Triton, one stream a request, opened for it. A request of 16 MiB of embeddings that
computes nothing (max_tokens 0: checked, hashed and kept) against its transport, which is a request of the same tensors
refused at its sampling parameters, before anyone looks at them, plus a copy of the bytes. The last line is JSON.
"""

import argparse
import asyncio
import json
import os
import queue
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from benchmarks.encode import seconds
from benchmarks.machine import machine
from benchmarks.result import finish
from benchmarks.serving_checkpoint import write_language_checkpoint
from benchmarks.serving_memory import measure_memory, processes
from contract.limits import Limits
from contract.names import MODEL
from contract.prompt import check_prompt
from contract.sampling import Sampling
from edge_runtime.clients.infer_inputs import infer_inputs
from export.language import export_language
from serving.engine import Engine
from serving.loop import LoopThread
from serving.settings import Settings
from serving.triton.launcher import TritonServer

PARTS = ["overhead", "large_request", "memory"]
PROMPT_TOKENS, NUM_TOKENS, NUM_STREAMS = 32, 24, 8
LARGE_GRID, LARGE_ROWS = (1, 84, 130), 2730  # 2730 rows x 768 x (1 + 3 levels) in FP16: 16.0 MiB

Tensors = dict[str, np.ndarray]


def prompt_ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, 200, PROMPT_TOKENS)


def text(value: str) -> np.ndarray:
    return np.array([value.encode()], dtype=object)


def ask(client: grpcclient.InferenceServerClient, tensors: Tensors) -> list[float]:
    """Seconds from the call to each response of one stream.

    Raises:
        InferenceServerException: the server refused the request.
    """
    inputs = infer_inputs(grpcclient, tensors, None)
    arrived: queue.Queue[tuple[float, Any, Any]] = queue.Queue()
    begun, times = time.perf_counter(), []
    client.start_stream(lambda result, error: arrived.put((time.perf_counter(), result, error)))
    client.async_stream_infer(MODEL, inputs)
    try:
        while True:
            now, result, error = arrived.get(timeout=120)
            times.append(now - begun)
            if error:
                raise error
            if result.get_response().parameters["triton_final_response"].bool_param:
                return times
    finally:
        client.stop_stream()


def by_server(url: str, num_streams: int) -> list[list[float]]:
    sampling = text(json.dumps({"max_tokens": NUM_TOKENS, "ignore_eos": True}))

    def one(seed: int) -> list[float]:
        with grpcclient.InferenceServerClient(url) as client:
            client.is_server_live()  # the connection is there before the request
            return ask(client, {"input_ids": prompt_ids(seed), "sampling_parameters": sampling})

    with ThreadPoolExecutor(num_streams) as pool:
        return list(pool.map(one, range(num_streams)))


def by_engine(engine: Engine, server: TritonServer, num_streams: int) -> list[list[float]]:
    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)

    async def one(seed: int) -> list[float]:
        begun = time.perf_counter()
        prompt = check_prompt(server.card, Limits(), input_ids=prompt_ids(seed))
        return [time.perf_counter() - begun async for _ in engine.generate(prompt, sampling)]

    async def together() -> list[list[float]]:
        return await asyncio.gather(*(one(seed) for seed in range(num_streams)))

    return asyncio.run(together())


def processor_seconds(server: TritonServer) -> dict[str, float]:
    """Time on any core that Triton and each model's process took so far."""
    fields = {name: (folder / "stat").read_text().rsplit(")", 1)[1].split() for name, folder in processes(server)}
    return {name: (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK") for name, f in fields.items()}


def first_token(streams: list[list[float]]) -> float:
    return statistics.median(times[0] for times in streams)


def gap(streams: list[list[float]]) -> float:
    """Seconds a token over whole answers from their requests on: a busy client reads in bursts, so gaps say little."""
    return statistics.median(times[-1] / len(times) for times in streams)


def measure_overhead(server: TritonServer, engine: Engine, num_streams: int, rounds: int) -> dict[str, float]:
    """First token, tokens a second (streams over the gap) and processor time of both sides."""
    sides: list[tuple[Callable[[], list[list[float]]], Callable[[], float]]] = [
        (lambda: by_engine(engine, server, num_streams), time.process_time),
        (lambda: by_server(server.grpc_url, num_streams), lambda: sum(processor_seconds(server).values())),
    ]
    firsts: list[list[float]] = [[], []]
    gaps: list[list[float]] = [[], []]
    taken = [0.0, 0.0]
    for number in range(rounds + 1):
        for side in (0, 1) if number % 2 else (1, 0):
            work, clock = sides[side]
            begun, streams = clock(), work()
            if number:  # the first warms up
                taken[side] += clock() - begun
                firsts[side].append(first_token(streams))
                gaps[side].append(gap(streams))
    result: dict[str, float] = {"streams": num_streams, "rounds": rounds}
    for name, low in (("", statistics.median), ("_undisturbed", least)):
        alone, served = low(firsts[0]), low(firsts[1])
        result |= {f"engine_first_token{name}_ms": round(1e3 * alone, 2)}
        result |= {f"added_first_token{name}_ms": round(1e3 * (served - alone), 2)}
        alone, served = num_streams / low(gaps[0]), num_streams / low(gaps[1])
        result |= {f"engine_tokens_per_second{name}": round(alone, 1)}
        result |= {f"lost_tokens_per_second{name}_percent": round(100 * (1 - served / alone), 2)}
    return result | {"added_processor_time_percent": round(100 * (taken[1] / taken[0] - 1), 2)}


def least(values: list[float]) -> float:
    """The lowest tenth of the values: on a shared machine it shows a side that nothing disturbs."""
    return statistics.quantiles(values, n=10, method="inclusive")[0]


def measure_large(server: TritonServer, rounds: int) -> dict[str, float]:
    """Time a 16 MiB request that the server keeps, one that it refuses at once, and a copy, each of new values."""
    card, width = server.card, server.card.hidden_size
    random = np.random.default_rng(0)
    main = (0.1 * random.standard_normal((LARGE_ROWS, width))).astype(np.float16)  # (N, H)
    levels = (0.1 * random.standard_normal((card.num_deepstack_levels, LARGE_ROWS, width))).astype(np.float16)
    tensors = {
        "image_grid_thw": np.array([LARGE_GRID]),
        "vision_embeddings": main,
        "deepstack_embeddings": levels,  # (L, N, H)
        "encoder_fingerprint": text(card.encoder_fingerprint),
    }
    kept = tensors | {"sampling_parameters": text('{"max_tokens": 0}')}
    refused = tensors | {"sampling_parameters": text('{"max_tokens": -1}')}
    copies = (np.empty_like(main), np.empty_like(levels))
    work: dict[str, Callable[[], object]] = {}
    with grpcclient.InferenceServerClient(server.grpc_url) as client:

        def refuse() -> None:
            try:
                ask(client, refused)
            except InferenceServerException as error:
                if "max_tokens" in error.message():
                    return
                raise
            raise AssertionError("the server accepted max_tokens -1, a refusal is expected")

        work["request"] = lambda: ask(client, kept)
        work["transport"] = refuse

        def copy_all() -> None:
            for copy, values in zip(copies, (main, levels), strict=True):
                np.copyto(copy, values)

        work["copy"] = copy_all
        times: dict[str, list[float]] = {name: [] for name in work}
        for number in range(rounds + 2):
            main[0, 0] = number  # another item, so that nothing is known already
            for name, side in work.items():
                taken = seconds(side)
                if number > 1:
                    times[name].append(taken)
    medians = {f"{name}_ms": round(1e3 * statistics.median(values), 2) for name, values in times.items()}
    ratio = statistics.median(
        a / (b + c) for a, b, c in zip(times["request"], times["transport"], times["copy"], strict=True)
    )
    return {"mebibytes": round((main.nbytes + levels.nbytes) / 2**20, 2), **medians, "ratio": round(ratio, 2)}


def measure_served(small: Path, parts: list[str], rounds: int) -> dict[str, object]:
    """The parts that compare a server with an engine: the bundled model, whose tokens cost little, and a random one."""
    found: dict[str, object] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, closing(LoopThread("benchmark")) as loop:
        folder = Path(name)
        if "overhead" in parts:
            export_language(str(small), folder / "bundled")
            settings = Settings(str(folder / "bundled"), dtype="fp32", num_threads=1)
            with TritonServer(settings) as server, closing(settings.load_engine(loop)) as engine:
                found["overhead_bundled"] = measure_overhead(server, engine, 1, 10 * rounds)
        found["parameters"] = write_language_checkpoint(small, folder / "random", folder / "scratch")
        settings = Settings(str(folder / "random"), dtype="fp32", num_threads=1)
        with TritonServer(settings) as server:
            if "overhead" in parts:
                with closing(settings.load_engine(loop)) as engine:
                    streams = {1: rounds, NUM_STREAMS: max(2, rounds // 2)}
                    found["overhead"] = [measure_overhead(server, engine, *numbers) for numbers in streams.items()]
            if "large_request" in parts:
                found["large_request"] = measure_large(server, rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=Path, default=Path("models/tiny"), help="checkpoint whose small files are used")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the others stay as --out has them")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=1000, help="of the memory part")
    parser.add_argument("--out", type=Path, help="also write the JSON here, and the memory's picture beside it")
    args = parser.parse_args()
    result: dict[str, object] = {"benchmark": "serving", "machine": machine(), "dtype": "fp32", "threads": 1}
    if args.out and args.out.exists():
        result = json.loads(args.out.read_text()) | result
    if set(args.parts) - {"memory"}:
        result |= measure_served(args.small, args.parts, args.rounds)
    if "memory" in args.parts:
        picture = args.out.with_name("serving_memory.png") if args.out else None
        result["memory"] = measure_memory(args.small, args.requests, picture)
    finish(result, args.out)


if __name__ == "__main__":
    main()
