"""What an old name of a served model costs: first token and whole answer through both names, and its process's memory.

It runs one real Triton with random weights of the 2B's width and little else, so that the way through the server takes
most of the time. The two names take turns in every round; the last line is JSON.

    python -m benchmarks.old_names --out benchmarks/results/old_names.json
"""

import argparse
import json
import queue
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient

from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from benchmarks.serving_checkpoint import WIDE, random_server
from contract.card import ModelCard
from contract.names import MODEL, OLD_NAMES
from serving.triton.launcher import TritonServer

OLD = next(old for old, model in OLD_NAMES.items() if model == MODEL)
NUM_TOKENS = 32
SIDE = 32  # patches: 256 rows of 4 x 2048 numbers in fp16 are 4 MiB


def inputs(card: ModelCard, seed: int | None) -> list[grpcclient.InferInput]:
    """A question of three words, or one about a picture of noise that no server has seen."""
    sampling = json.dumps({"max_tokens": NUM_TOKENS, "ignore_eos": True})
    values: dict[str, Any] = {"sampling_parameters": np.array([sampling.encode()], object)}  # (1,)
    ids = np.array([5, 6, 7], np.int64)
    if seed is not None:
        random, rows = np.random.default_rng(seed), SIDE * SIDE // card.merge_size**2
        ids = np.array(
            [card.vision_start_token_id, *[card.image_token_id] * rows, card.vision_end_token_id, 5], np.int64
        )
        shape = (1 + card.num_deepstack_levels, rows, card.hidden_size)
        levels = random.standard_normal(shape, np.float32).astype(np.float16)
        values |= {"vision_embeddings": levels[0], "deepstack_embeddings": levels[1:]}
        values["image_grid_thw"] = np.array([[1, SIDE, SIDE]], np.int64)
        values["encoder_fingerprint"] = np.array([card.encoder_fingerprint.encode()], object)
    values["input_ids"] = ids
    kinds = {"int64": "INT64", "float16": "FP16", "object": "BYTES"}
    made = []
    for name, array in values.items():
        made.append(grpcclient.InferInput(name, list(array.shape), kinds[array.dtype.name]))
        made[-1].set_data_from_numpy(np.ascontiguousarray(array))
    return made


def ask(client: grpcclient.InferenceServerClient, answers: Any, model: str, asked: Any) -> tuple[float, float]:
    """Milliseconds to the first response and to the last."""
    begun = time.perf_counter()
    client.async_stream_infer(model, asked)
    first, is_final = 0.0, False
    while not is_final:
        result, error = answers.get(timeout=60)
        if error is not None:
            raise error
        first = first or time.perf_counter() - begun
        is_final = result.get_response().parameters["triton_final_response"].bool_param
    return first * 1e3, (time.perf_counter() - begun) * 1e3


def measure(server: TritonServer, rounds: int) -> list[dict[str, object]]:
    """A row for a question without a picture, and one for a question that uploads 4 MiB."""
    rows: list[dict[str, object]] = []
    answers: queue.Queue[Any] = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for what in ("text", "4 MiB"):
            times: dict[str, list[tuple[float, float]]] = {MODEL: [], OLD: []}
            for turn in range(-5, rounds):
                for place, model in enumerate((MODEL, OLD) if turn % 2 else (OLD, MODEL)):
                    asked = inputs(server.card, None if what == "text" else 2 * (turn + 5) + place)
                    taken = ask(client, answers, model, asked)
                    if turn >= 0:
                        times[model].append(taken)
            row: dict[str, object] = {"what": what, "rounds": rounds}
            for place, name in enumerate(("first_token", f"{NUM_TOKENS}_tokens")):
                pairs = [(old[place], new[place]) for old, new in zip(times[OLD], times[MODEL], strict=True)]
                row[f"{name}_ms"] = round(statistics.median(new for _, new in pairs), 2)
                row[f"{name}_ms_more"] = round(statistics.median(old - new for old, new in pairs), 2)
                row[f"{name}_ratio"] = round(statistics.median(old / new for old, new in pairs), 3)
            rows.append(row)
            print(json.dumps(row), flush=True)
        client.stop_stream()
    return rows


def own_mib(server: TritonServer) -> dict[str, float]:
    """MiB that a model's process has for itself alone, by the model's name."""
    found: dict[str, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        if any(server.shm_prefix in word for word in words) and words[0].endswith("python_backend_stub"):
            private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
            found[Path(words[1]).parts[-3]] = round(private / 1024, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Time both names of the streaming model.")
    parser.add_argument("--rounds", type=int, default=41)
    add_out(parser)
    args = parser.parse_args()
    with random_server(WIDE) as server:
        rows = measure(server, args.rounds)
        memory = own_mib(server)
    result = {"benchmark": "old_names", "own_mib": memory, "machine": machine(), "rows": rows}
    finish(result, args.out)


if __name__ == "__main__":
    main()
