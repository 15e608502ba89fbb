"""Resident memory of the server and its Python processes while requests of every kind pass: a leak shows as a slope.

Requests ask for streams and for whole answers, with and without pictures of 16 to 1,024 patches, new and repeated ones;
clients leave some after their first token. The reuse store is small, so that it is full when the count begins.
"""

import json
import os
import queue
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient

from benchmarks.chart import Panel, draw_chart
from contract.card import ModelCard
from contract.limits import Limits
from contract.names import MODEL, UNARY_MODEL
from edge_runtime.clients.infer_inputs import infer_inputs
from export.language import export_language
from serving.settings import Settings
from serving.triton.launcher import TritonServer

GRIDS = ((1, 4, 4), (1, 8, 8), (1, 16, 16), (1, 32, 32))
NUM_WARM, NUM_AT_ONCE, NUM_SAMPLES, NUM_TOKENS = 300, 8, 50, 8


def processes(server: TritonServer) -> list[tuple[str, Path]]:
    """Triton and each model's process, with its folder in /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # the process has just ended
            continue
        if any(server.shm_prefix in word for word in words) and "guardian" not in " ".join(words[:6]):
            found.append((Path(words[1]).parts[-3] if words[1].endswith("model.py") else "tritonserver", folder))
    return found


def resident(server: TritonServer) -> dict[str, float]:
    """Resident MiB of each process of `processes`, by its name."""
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    return {name: int((folder / "statm").read_text().split()[1]) * page for name, folder in processes(server)}


def tensors(card: ModelCard, number: int) -> dict[str, np.ndarray]:
    """Request `number`: every fifth is text alone, and the server has seen every third picture before."""
    sampling = {"max_tokens": NUM_TOKENS, "ignore_eos": True}
    made = {"sampling_parameters": np.array([json.dumps(sampling).encode()], dtype=object)}
    if number % 5 == 0:
        return made | {"text_input": np.array([b"Tell me something."], dtype=object)}
    random = np.random.default_rng(7 if number % 3 == 0 else number)
    grid = GRIDS[number % len(GRIDS)]
    rows = grid[1] * grid[2] // card.merge_size**2
    shape = (1 + card.num_deepstack_levels, rows, card.hidden_size)
    values = (0.1 * random.standard_normal(shape)).astype(np.float16)  # (1+L, N, H)
    ids = [card.vision_start_token_id, *[card.image_token_id] * rows, card.vision_end_token_id, 20, 21]
    return made | {
        "input_ids": np.array(ids),
        "vision_embeddings": values[0],
        "deepstack_embeddings": values[1:],
        "image_grid_thw": np.array([grid]),
        "encoder_fingerprint": np.array([card.encoder_fingerprint.encode()], dtype=object),
    }


def send(server: TritonServer, number: int) -> None:
    """Send one request, streamed or not; the client leaves every seventh stream after its first token."""
    inputs = infer_inputs(grpcclient, tensors(server.card, number), None)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        if number % 2:
            client.infer(UNARY_MODEL, inputs, client_timeout=60)
            return
        _stream(client, inputs, is_left=number % 14 == 0)


def _stream(client: grpcclient.InferenceServerClient, inputs: list[Any], *, is_left: bool) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(MODEL, inputs)
    is_final = False
    while not is_final:
        result, error = answers.get(timeout=60)
        if error:
            raise error
        is_final = result.get_response().parameters["triton_final_response"].bool_param
        if is_left:
            break
    client.stop_stream(cancel_requests=not is_final)


def measure_memory(small: Path, num_requests: int, picture: Path | None) -> dict[str, object]:
    """Send the requests to a server over the bundled model; what memory did from the end of the warm-up on."""
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        export_language(str(small), Path(folder) / "language")
        limits = Limits(max_reuse_bytes=8 << 20)
        with (
            TritonServer(Settings(f"{folder}/language", num_threads=1, limits=limits)) as server,
            ThreadPoolExecutor(NUM_AT_ONCE) as pool,
        ):
            work: Callable[[int], None] = lambda number: send(server, number)  # noqa: E731
            list(pool.map(work, range(NUM_WARM)))
            step = max(1, num_requests // NUM_SAMPLES)
            samples.append(resident(server))
            for start in range(0, num_requests, step):
                list(pool.map(work, range(NUM_WARM + start, NUM_WARM + start + step)))
                samples.append(resident(server))
    counts = [float(step * number) for number in range(len(samples))]
    totals = [sum(sample.values()) for sample in samples]
    if picture:
        series = {name: list(zip(counts, (s[name] for s in samples), strict=True)) for name in samples[0]}
        draw_chart("Resident memory, MiB", "requests", [Panel("", series)], picture)
    slope = statistics.linear_regression(counts, totals).slope
    return {
        "requests": int(counts[-1]),
        "after_warm_up_mib": {name: round(value, 1) for name, value in samples[0].items()},
        "at_the_end_mib": {name: round(value, 1) for name, value in samples[-1].items()},
        "growth_mib": round(totals[-1] - totals[0], 1),
        "slope_kib_per_request": round(1024 * slope, 2),
        "total_mib": [round(total, 1) for total in totals],
    }
