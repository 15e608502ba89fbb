"""Our vLLM engine under Triton, bare AsyncLLM, and our transformers engine under Triton: `make bench-vllm`.

The same prompts with pictures go to all three in turn, in rounds: eight streams at once (`--streams`) for tokens a
second, one stream for the time to the first token. The ceiling of the first column is the second, which has no network,
no Triton and no queue. Models: the bundled one, whose steps cost next to nothing, so that only overhead shows, random
ones of 47 and 151 million parameters, nearer to what a real model's step takes on a CPU, and random ones of the real
shapes, for GPUs (`--models 2b --dtype bf16 --engine-args FILE`). Rows travel in float16, as the edge sends them.
Every side packs prompts, makes inputs and opens streams before the clock starts. The last line is JSON.
"""

import argparse
import json
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import tritonclient.grpc as grpcclient

from benchmarks.machine import machine
from contract.language import LanguageCheckpoint, read_language_card
from contract.limits import Limits
from contract.names import MODEL
from edge_runtime.clients.infer_inputs import infer_inputs
from serving.settings import DTYPES, Settings
from serving.triton.launcher import TritonServer
from serving.triton.stub_environment import stub_environment
from serving.triton.vllm_environment import vllm_folders
from serving.vllm.arguments import read_arguments

ROOT = Path(__file__).parents[1]
KV_BYTES, SIDE, TEXT_TOKENS = 512 << 20, 16, 32  # SIDE in patches
SMALL = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
}
REAL = {"vocab_size": 151_936, "num_key_value_heads": 8, "head_dim": 128}
SHAPES: dict[str, dict[str, int]] = {
    "47m": SMALL | {"hidden_size": 512, "intermediate_size": 1536},
    "151m": SMALL,
    "2b": REAL | {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "8b": REAL | {"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32},
}
BUNDLED, BARE = "bundled", "bare_vllm"
ENGINES = ("vllm", "transformers")  # under Triton
FIRSTS_A_ROUND = 18
PATIENCE_SECONDS = 300
Measured = tuple[float, list[float]]  # seconds of all streams, seconds to the first token of each
Measure = Callable[[int, int], Measured]  # for so many streams and tokens


@dataclass(frozen=True)
class Engine:
    """How every side runs the model. arguments are vLLM's engine arguments."""

    dtype: str
    arguments: dict[str, Any]


def checkpoint(bundled: Path, folder: Path, name: str) -> None:
    """A language checkpoint of the bundled model, or of SHAPES[name] with random weights."""
    if name == BUNDLED:
        subprocess.run(
            [sys.executable, "-m", "export.language", bundled, folder], check=True, stdout=subprocess.DEVNULL
        )
        return
    config = transformers.AutoConfig.from_pretrained(bundled)
    for field, value in SHAPES[name].items():
        setattr(config.text_config, field, value)
    config.text_config.rope_parameters["mrope_section"] = [24, 20, 20]
    config.vision_config.out_hidden_size = config.text_config.hidden_size
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = transformers.Qwen3VLForConditionalGeneration(config).bfloat16()
    del model.model.visual
    shutil.copytree(bundled, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    model.save_pretrained(folder)
    LanguageCheckpoint("0" * 32, has_outer_video_wrapper=True).write(folder)


def write_prompts(folder: Path, path: Path, streams: int) -> dict[str, np.ndarray]:
    """One prompt a stream, a picture and some text, drawn once for every side; the first axis is the stream's."""
    card, random = read_language_card(folder), np.random.default_rng(0)
    n, width, levels = SIDE**2 // card.merge_size**2, card.hidden_size, card.num_deepstack_levels
    picture: list[Any] = [card.vision_start_token_id, *[card.image_token_id] * n, card.vision_end_token_id]
    text = random.integers(0, 256, (streams, TEXT_TOKENS))
    prompts = {
        "input_ids": np.concatenate([np.tile(picture, (streams, 1)), text], axis=1),
        "vision_embeddings": random.standard_normal((streams, n, width), np.float32).astype(np.float16),
        "deepstack_embeddings": random.standard_normal((streams, levels, n, width), np.float32).astype(np.float16),
        "image_grid_thw": np.tile(np.array([1, SIDE, SIDE]), (streams, 1, 1)),
    }
    np.savez(path, **prompts)  # type: ignore[arg-type]
    return prompts


def bare(stack: ExitStack, folder: Path, path: Path, how: Engine, limits: Limits) -> Measure:
    """Start AsyncLLM in a process of vLLM's environment; it is ready when this returns."""
    environment = stub_environment(*vllm_folders())
    arguments = json.dumps([how.dtype, asdict(limits), how.arguments])
    line: list[str | Path] = [environment.bin / "python", "-m", "benchmarks.vllm_bare", folder, path, arguments]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process: Any = stack.enter_context(subprocess.Popen(line, cwd=ROOT, **pipes))
    stack.callback(process.stdin.close)

    def measure(streams: int, tokens: int) -> Measured:
        process.stdin.write(json.dumps({"streams": streams, "tokens": tokens}) + "\n")
        process.stdin.flush()
        while not (answer := process.stdout.readline()).startswith("result "):
            if not answer:
                raise RuntimeError(f"the bare process ended with status {process.wait()}: its log stands above")
        found = json.loads(answer.removeprefix("result "))
        return found["seconds"], found["first"]

    return measure


class Stream:
    """A gRPC stream that is open before the clock starts, as perf_analyzer's are."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        self._client = stack.enter_context(grpcclient.InferenceServerClient(url))
        self._arrived: queue.SimpleQueue[tuple[float, Any, Any]] = queue.SimpleQueue()
        self._client.start_stream(self._receive)

    def _receive(self, result: Any, error: Any) -> None:
        self._arrived.put((time.perf_counter(), result, error))

    def send(self, inputs: list[Any]) -> None:
        self._client.async_stream_infer(MODEL, inputs)

    def read(self, tokens: int) -> tuple[float, float]:
        """When the first and the last of so many tokens came."""
        count, first, now = 0, 0.0, 0.0
        while count < tokens:
            now, result, error = self._arrived.get(timeout=PATIENCE_SECONDS)
            if error is not None:
                raise error
            first = first or now
            count += len(result.as_numpy("token_ids"))
        return first, now


def served(stack: ExitStack, settings: Settings, prompts: dict[str, np.ndarray], fingerprint: str) -> Measure:
    """A server and its client, a stream for each prompt. This makes the inputs beforehand, like AsyncLLM's."""
    server = stack.enter_context(TritonServer(settings))
    opened = [Stream(stack, server.grpc_url) for _ in prompts["input_ids"]]

    @cache
    def inputs(i: int, tokens: int) -> list[Any]:
        sampling = json.dumps({"max_tokens": tokens, "ignore_eos": True}).encode()
        values = {name: array[i] for name, array in prompts.items()}
        values["sampling_parameters"] = np.array([sampling], object)
        values["encoder_fingerprint"] = np.array([fingerprint.encode()], object)
        return infer_inputs(grpcclient, values, None)

    def measure(streams: int, tokens: int) -> Measured:
        wanted = [inputs(i, tokens) for i in range(streams)]
        started = time.perf_counter()
        for stream, values in zip(opened, wanted, strict=False):
            stream.send(values)
        times = [stream.read(tokens) for stream in opened[:streams]]
        return max(last for _, last in times) - started, [first - started for first, _ in times]

    return measure


def compare(folder: Path, work: Path, how: Engine, streams: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Medians of every side, and of the ratios and differences of calls that followed each other."""
    prompts = write_prompts(folder, work / "prompts.npz", streams)
    fingerprint = read_language_card(folder).encoder_fingerprint
    limits = Limits(max_active=streams, max_kv_bytes=KV_BYTES, max_reuse_bytes=0)
    rates: dict[str, list[float]] = {}
    firsts: dict[str, list[float]] = {}  # ms
    orders = cycle(permutations((BARE, *ENGINES)))  # each side follows each other one equally often
    with ExitStack() as stack:
        sides = {BARE: bare(stack, folder, work / "prompts.npz", how, limits)}
        for engine in ENGINES:
            arguments = how.arguments if engine == "vllm" else {}
            settings = Settings(str(folder), engine, how.dtype, num_threads=1, limits=limits, engine_args=arguments)
            sides[engine] = served(stack, settings, prompts, fingerprint)
        for number in range(rounds + 1):
            if number == 1:  # the first warmed up
                rates, firsts = {}, {}
            for name in next(orders):
                rates.setdefault(name, []).append(streams * tokens / sides[name](streams, tokens)[0])
            for _ in range(FIRSTS_A_ROUND):
                for name in next(orders):
                    firsts.setdefault(name, []).append(1e3 * sides[name](1, 1)[1][0])

    def over_bare(name: str) -> float:
        return statistics.median(ours / base for ours, base in zip(rates[name], rates[BARE], strict=True))

    def quartiles(name: str) -> list[float]:
        found = [ours - base for ours, base in zip(firsts[name], firsts[BARE], strict=True)]
        return [round(quartile, 1) for quartile in statistics.quantiles(found, n=4)]

    later = {name: quartiles(name) for name in ENGINES}

    return {
        "tokens_per_second": {name: round(statistics.median(rates[name]), 1) for name in sides},
        "first_token_ms": {name: round(statistics.median(firsts[name]), 1) for name in sides},
        "rate_over_bare": {name: round(over_bare(name), 3) for name in ENGINES},
        "first_token_later_ms": {name: median for name, (_, median, _) in later.items()},
        "first_token_later_quartiles_ms": {name: [low, high] for name, (low, _, high) in later.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tiny")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="+", default=[BUNDLED, "47m", "151m"], choices=[BUNDLED, *SHAPES])
    parser.add_argument("--dtype", default="fp32", choices=DTYPES)
    parser.add_argument("--engine-args", type=Path, help="an engine_args.json for both of vLLM's sides")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    how = Engine(options.dtype, read_arguments(options.engine_args) if options.engine_args else {})
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else machine()
    results: dict[str, Any] = {"machine": device, "streams": options.streams, "tokens": options.tokens}
    results |= {"rounds": options.rounds, "dtype": how.dtype}
    for name in options.models:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "language"
            checkpoint(options.model, folder, name)
            results[name] = compare(folder, Path(place), how, options.streams, options.tokens, options.rounds)
            print(name, json.dumps(results[name], indent=2), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
