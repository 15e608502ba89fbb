"""Tokens a second of one and of eight streams through the engine, and of transformers' generate: `make bench-decode`.

Decoding one stream reads every weight for every token, so memory bandwidth is its ceiling; more streams share the
reading. Weights are random, in the shape of a real text model: speed does not depend on them. The bundled model, whose
tokens cost little, then shows what the engine itself costs. Rounds are interleaved, figures are medians; the last line
is JSON.
"""

import argparse
import asyncio
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models
from transformers import DynamicCache, PreTrainedModel

from benchmarks.encode import machine, seconds
from contract.card import ModelCard
from contract.limits import Limits
from contract.prompt import check_prompt
from contract.sampling import Sampling
from serving.attention import PACKED
from serving.checkpoint import LanguageModel
from serving.transformers_engine import TransformersEngine

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
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROMPT_TOKENS, NUM_STREAMS = 32, 8


def random_model(dtype: torch.dtype) -> PreTrainedModel:
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "deepstack_visual_indexes": [], "out_hidden_size": 1024}
    config = transformers.Qwen3VLConfig(text_config=SHAPE, vision_config=vision, tie_word_embeddings=True)
    return transformers.Qwen3VLForConditionalGeneration(config).to(dtype).eval()


def bundled_model(folder: Path) -> PreTrainedModel:
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def as_language_model(model: PreTrainedModel) -> LanguageModel:
    """The same weights as the engine takes them; no end tokens, so that every answer is as long as it may be."""
    card = ModelCard.from_config(model.config.to_dict(), "")
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(card.vocab_size)}, "0"))
    decoder, head = model.model.language_model, model.lm_head
    return LanguageModel(card, tokenizer, decoder, head, frozenset(), model.dtype, model.device)


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
    """Bytes a second that a sum over memory reads, the best of several."""
    memory = torch.ones(num_bytes // 4)
    return num_bytes / min(seconds(memory.sum) for _ in range(5))


def compare(model: PreTrainedModel, num_tokens: int, rounds: int) -> dict[str, float]:
    """Tokens a second of every side, medians of interleaved rounds."""
    language = as_language_model(model)
    engine = TransformersEngine(language)

    def sides() -> dict[str, tuple[str, int, Callable[[], None]]]:
        return {
            "generate": ("sdpa", 1, lambda: by_generate(model, num_tokens)),
            "bare_loop": ("sdpa", 1, lambda: by_loop(model, num_tokens)),
            "one_stream": (PACKED, 1, lambda: by_engine(engine, language.card, 1, num_tokens)),
            "eight_streams": (PACKED, NUM_STREAMS, lambda: by_engine(engine, language.card, NUM_STREAMS, num_tokens)),
        }

    times: dict[str, list[float]] = {name: [] for name in sides()}
    for round_number in range(rounds + 1):
        for name, (attention, _, work) in sides().items():
            model.set_attn_implementation(attention)
            taken = seconds(work)
            if round_number:  # the first warms up
                times[name].append(taken)
    engine.close()
    rates = {name: streams * num_tokens / statistics.median(times[name]) for name, (_, streams, _) in sides().items()}
    pairs = zip(times["one_stream"], times["eight_streams"], strict=True)
    return rates | {"eight_over_one": statistics.median(NUM_STREAMS * one / eight for one, eight in pairs)}


def measure_large(dtype: str, num_tokens: int, rounds: int) -> dict[str, object]:
    model = random_model(DTYPES[dtype])
    weights = sum(p.numel() for p in model.model.language_model.parameters())  # the head is the tied table
    rates = compare(model, num_tokens, rounds)
    ceiling = bandwidth() / (weights * model.dtype.itemsize)  # passes a second
    return {
        "dtype": dtype,
        "num_parameters": weights,
        "tokens_per_second": {name: round(rate, 2) for name, rate in rates.items() if name != "eight_over_one"},
        "eight_over_one": round(rates["eight_over_one"], 2),
        "bandwidth_passes_per_second": round(ceiling, 2),
        "share_of_bandwidth": {
            "one_stream": round(rates["one_stream"] / ceiling, 3),
            "eight_streams": round(rates["eight_streams"] / NUM_STREAMS / ceiling, 3),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the transformers engine against transformers.")
    parser.add_argument("--model", type=Path, default=Path("models/tiny"), help="of the second part")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    large = []
    for dtype in args.dtypes:
        large.append(measure_large(dtype, args.tokens, args.rounds))
        print(large[-1], flush=True)
    tiny = compare(bundled_model(args.model), 4 * args.tokens, args.rounds)
    result = {
        "benchmark": "decode",
        "threads": args.threads,
        "prompt_tokens": PROMPT_TOKENS,
        "answer_tokens": args.tokens,
        "machine": machine(),
        "versions": {m.__name__: m.__version__ for m in (torch, transformers)},
        "random": large,
        "bundled": {
            "model": args.model.name,
            "ms_per_token": {name: round(1e3 / rate, 3) for name, rate in tiny.items() if name != "eight_over_one"},
        },
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
