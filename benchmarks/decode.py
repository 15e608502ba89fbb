"""`make bench-decode`: tokens a second of one and of eight streams through the engine, and of transformers' generate.

To decode one stream, the engine reads every weight for every token, so memory bandwidth is its ceiling; more streams
share the reads. Weights are random, in the shape of a real text model: speed does not depend on them. The bundled
model, whose tokens cost little, then shows what the engine itself costs. The sides take turns in every round, and
figures are medians, by wall clock and by processor time, which other jobs on a machine disturb less. The last line is
JSON.
"""

import argparse
import asyncio
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models
from transformers import DynamicCache, PreTrainedModel

from benchmarks.encode import seconds
from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from contract import families
from contract.card import ModelCard
from contract.limits import Limits
from contract.prompt import check_prompt
from contract.sampling import Sampling
from serving import families as serving_families
from serving.transformers_engine.attention import PACKED
from serving.transformers_engine.checkpoint import LanguageModel
from serving.transformers_engine.engine import TransformersEngine
from serving.transformers_engine.few_rows import weights_first
from serving.transformers_engine.recurrence import pack

SHAPE = {  # the text model of Qwen3-0.6B with a smaller vocabulary
    "vocab_size": 32_768,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
HYBRID = {  # a text model of Qwen3.5's layout, 16 layers with a smaller vocabulary; three of four layers carry a state
    "vocab_size": 32_768,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 16,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "tie_word_embeddings": True,
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROMPT_TOKENS, NUM_STREAMS = 8, 8  # short, because reading a prompt is not decoding


def random_model(dtype: torch.dtype) -> PreTrainedModel:
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "deepstack_visual_indexes": [], "out_hidden_size": 1024}
    config = transformers.Qwen3VLConfig(text_config=SHAPE, vision_config=vision, tie_word_embeddings=True)
    return transformers.Qwen3VLForConditionalGeneration(config).to(dtype).eval()


def hybrid_model(dtype: torch.dtype) -> PreTrainedModel:
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 1024}
    names = ("vision_start", "vision_end", "image", "video")
    ids = {f"{name}_token_id": 32_764 + place for place, name in enumerate(names)}  # within the smaller vocabulary
    config = transformers.Qwen3_5Config(text_config=HYBRID, vision_config=vision, tie_word_embeddings=True, **ids)
    return transformers.Qwen3_5ForConditionalGeneration(config).to(dtype).eval()


def bundled_model(folder: Path) -> PreTrainedModel:
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def as_language_model(model: PreTrainedModel) -> LanguageModel:
    """The same weights as the engine takes them; no end tokens, so that every answer is as long as it may be."""
    kind = model.config.model_type
    card = families.find(kind).card(model.config.to_dict(), "")
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(card.vocab_size)}, "0"))
    decoder, head = model.model.language_model, model.lm_head
    pack(decoder)
    weights_first(decoder, head)
    return LanguageModel(
        card, serving_families.find(kind), tokenizer, decoder, head, frozenset(), model.dtype, model.device
    )


def prompt_ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, PROMPT_TOKENS)


def by_generate(model: PreTrainedModel, num_tokens: int) -> None:
    ids = torch.from_numpy(prompt_ids(0)).to(model.device)[None]
    lengths = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **lengths)
    assert out.shape[1] == PROMPT_TOKENS + num_tokens


@torch.inference_mode()
def by_loop(model: PreTrainedModel, num_tokens: int) -> None:
    """The least that one stream can cost with transformers: decoder, head, argmax."""
    decoder, cache = model.model.language_model, DynamicCache(config=model.config.text_config)
    ids = torch.from_numpy(prompt_ids(0)).to(model.device)[None]
    for _ in range(num_tokens):
        hidden = decoder(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        ids = model.lm_head(hidden[:, -1:]).argmax(-1)
        ids.item()


def by_engine(engine: TransformersEngine, card: ModelCard, num_streams: int, num_tokens: int) -> None:
    async def one(seed: int) -> int:
        prompt = check_prompt(card, Limits(), input_ids=prompt_ids(seed))
        return sum([len(d.token_ids) async for d in engine.generate(prompt, Sampling(max_tokens=num_tokens))])

    async def together() -> list[int]:
        return await asyncio.gather(*(one(seed) for seed in range(num_streams)))

    assert asyncio.run(together()) == [num_tokens] * num_streams


def bandwidth(num_bytes: int = 1 << 30) -> float:
    """Bytes that a sum over memory reads in a second of processor time, the best of several."""
    memory = torch.ones(num_bytes // 4)

    def cpu_seconds() -> float:
        started = time.process_time()
        memory.sum()
        return time.process_time() - started

    return num_bytes / min(cpu_seconds() for _ in range(8))


def compare(model: PreTrainedModel, num_tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """Tokens a second of every side by wall clock and by processor time, medians of interleaved rounds."""
    served = copy.deepcopy(model)  # the engine gives gated-delta layers a forward that generate does not know
    served.set_attn_implementation(PACKED)
    language = as_language_model(served)
    engine = TransformersEngine(language)
    sides: dict[str, tuple[int, Callable[[int], None]]] = {
        "generate": (1, lambda n: by_generate(model, n)),
        "bare_loop": (1, lambda n: by_loop(model, n)),
        "one_stream": (1, lambda n: by_engine(engine, language.card, 1, n)),
        "eight_streams": (NUM_STREAMS, lambda n: by_engine(engine, language.card, NUM_STREAMS, n)),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for round_number in range(rounds + 1):
        for name, (streams, work) in sides.items():
            cpu = time.process_time()
            wall = seconds(partial(work, num_tokens if round_number else 2))
            cpu = time.process_time() - cpu
            if round_number:  # the first warms up
                rates[name].append((streams * num_tokens / wall, streams * num_tokens / cpu))
    engine.close()
    result = {}
    for place, clock in enumerate(("wall", "cpu")):
        by_side = {name: [pair[place] for pair in pairs] for name, pairs in rates.items()}
        result[clock] = {name: statistics.median(values) for name, values in by_side.items()}
        pairs = zip(by_side["one_stream"], by_side["eight_streams"], strict=True)
        result[clock]["eight_over_one"] = statistics.median(eight / one for one, eight in pairs)
    return result


def measure_large(model: PreTrainedModel, dtype: str, num_tokens: int, rounds: int) -> dict[str, object]:
    weights = sum(p.numel() for p in model.model.language_model.parameters())  # the head is the tied table
    rates = compare(model, num_tokens, rounds)
    ceiling = bandwidth() / (weights * model.dtype.itemsize)  # passes over the weights in a second
    passes = {"one_stream": rates["cpu"]["one_stream"], "eight_streams": rates["cpu"]["eight_streams"] / NUM_STREAMS}
    return {
        "dtype": dtype,
        "num_parameters": weights,
        "tokens_per_second": {clock: rounded(values) for clock, values in rates.items()},
        "bandwidth_passes_per_second": round(ceiling, 2),
        "share_of_bandwidth": rounded({name: count / ceiling for name, count in passes.items()}),
    }


def measure_bundled(folder: Path, num_tokens: int, rounds: int) -> dict[str, object]:
    rates = compare(bundled_model(folder), num_tokens, rounds)
    for values in rates.values():
        values.pop("eight_over_one")
    times = {clock: {name: 1e3 / rate for name, rate in values.items()} for clock, values in rates.items()}
    return {"model": folder.name, "ms_per_token": {clock: rounded(values) for clock, values in times.items()}}


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the transformers engine against transformers.")
    parser.add_argument("--model", type=Path, default=Path("models/tiny"), help="of the second part")
    parser.add_argument("--hybrid", action="store_true", help="only the model of gated-delta layers")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    add_out(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hybrid = measure_large(hybrid_model(torch.float32), "fp32", args.tokens, args.rounds)
    print(hybrid, flush=True)
    if args.hybrid:
        finish(facts(args) | {"hybrid": hybrid}, args.out)
        return
    large = []
    for dtype in args.dtypes:
        large.append(measure_large(random_model(DTYPES[dtype]), dtype, args.tokens, args.rounds))
        print(large[-1], flush=True)
    bundled = measure_bundled(args.model, 4 * args.tokens, args.rounds)
    finish(facts(args) | {"random": large, "hybrid": hybrid, "bundled": bundled}, args.out)


def facts(args: argparse.Namespace) -> dict[str, object]:
    return {
        "benchmark": "decode",
        "threads": args.threads,
        "prompt_tokens": PROMPT_TOKENS,
        "answer_tokens": args.tokens,
        "machine": machine(),
        "versions": {m.__name__: m.__version__ for m in (torch, transformers)},
    }


if __name__ == "__main__":
    main()
