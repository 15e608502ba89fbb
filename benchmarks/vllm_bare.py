"""AsyncLLM alone, without Triton and without our engine, for benchmarks.vllm to compare with, in vLLM's environment.

Start it as `vllm_bare.py CHECKPOINT PROMPTS.npz '[DTYPE, LIMITS, ENGINE_ARGS]'`. For each measurement it reads one JSON
line from stdin, `{"streams": 8, "tokens": 64}`, and writes one to stdout: seconds of the whole, and to the first token
of each stream.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from contract.language import read_language_card
from contract.limits import Limits
from contract.prompt import check_prompt
from serving.vllm.arguments import engine_arguments
from serving.vllm.host import set_environment
from serving.vllm.prompt import engine_input


def prompts(path: Path, folder: Path, dtype: torch.dtype) -> Iterator[Any]:
    """vLLM's inputs. This makes them beforehand, because AsyncLLM neither packs nor hashes."""
    card, arrays = read_language_card(folder), np.load(path)
    for i, ids in enumerate(arrays["input_ids"]):
        embeddings = {name: arrays[name][i] for name in ("vision_embeddings", "deepstack_embeddings")}
        grid, fingerprint = arrays["image_grid_thw"][i], card.encoder_fingerprint
        prompt = check_prompt(
            card,
            Limits(),
            input_ids=ids,
            embeddings=embeddings,
            image_grid_thw=grid,
            encoder_fingerprint=fingerprint,
        )
        yield engine_input(prompt, card, dtype)


async def measure(llm: Any, inputs: list[Any], number: int, streams: int, tokens: int) -> dict[str, Any]:
    kind = RequestOutputKind.DELTA
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, detokenize=False, output_kind=kind)

    async def one(i: int) -> float:
        count, first = 0, 0.0
        async for output in llm.generate(inputs[i], params, f"{number}-{i}"):
            first = first or time.perf_counter()
            count += len(output.outputs[0].token_ids)
        assert count == tokens
        return first

    started = time.perf_counter()
    firsts = await asyncio.gather(*(one(i) for i in range(streams)))
    return {"seconds": time.perf_counter() - started, "first": [first - started for first in firsts]}


async def main(folder: Path, path: Path, dtype: str, limits: dict[str, Any], arguments: dict[str, Any]) -> None:
    llm = AsyncLLM.from_engine_args(engine_arguments(folder, Limits(**limits), dtype, arguments))
    inputs = list(prompts(path, folder, llm.model_config.dtype))
    number = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        number += 1
        result = await measure(llm, inputs, number, **json.loads(line))
        print(f"result {json.dumps(result)}", flush=True)
    llm.shutdown()


if __name__ == "__main__":
    set_environment(1)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *json.loads(sys.argv[3])))
