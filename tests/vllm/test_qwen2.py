"""Qwen2-VL and Qwen2.5-VL on vLLM: tokens are those of the other engine, which tests/families holds against transformers."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from contract.limits import Limits
from contract.prompt import Prompt, check_prompt
from contract.sampling import Sampling
from export.language import export_language
from serving.engine import Engine
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.vllm.engine import VllmEngine
from tests.families.qwen2_models import FAMILIES, write
from tests.vllm.conftest import KV_BYTES, LOOP, run

NUM_TOKENS = 12
GRIDS = ((1, 4, 6), (1, 8, 4), (5, 4, 4))  # two pictures and a video


def prompts(folder: Path) -> list[Prompt]:
    """Pictures alone, a video alone, all three, text alone; the rows are drawn."""
    from contract.language import read_language_card

    card, random = read_language_card(folder), np.random.default_rng(0)
    found = []
    for chosen in (GRIDS[:2], GRIDS[2:], GRIDS, ()):
        ids = [40, 41, 42]
        for t, h, w in chosen:
            pad = card.video_token_id if t > 1 else card.image_token_id
            ids += [card.vision_start_token_id, *[pad] * (t * h * w // 4), card.vision_end_token_id, 50 + h]
        rows = sum(t * h * w // 4 for t, h, w in chosen)
        pictures, videos = ([grid for grid in chosen if (grid[0] > 1) == is_video] for is_video in (False, True))
        has_seconds = bool(videos) and card.tokens_per_second is not None
        found.append(
            check_prompt(
                card,
                Limits(),
                input_ids=np.array(ids, np.int64),
                embeddings={
                    "vision_embeddings_fp32": random.standard_normal((rows, card.hidden_size)).astype(np.float32)
                }
                if rows
                else {},
                image_grid_thw=np.array(pictures, np.int64).reshape(-1, 3) if pictures else None,
                video_grid_thw=np.array(videos, np.int64).reshape(-1, 3) if videos else None,
                video_second_per_grid=np.full(len(videos), 1.25, np.float32) if has_seconds else None,
                encoder_fingerprint=card.encoder_fingerprint if rows else None,
            )
        )
    return found


async def answers(engine: Engine, asked: list[Prompt]) -> list[list[int]]:
    async def one(prompt: Prompt) -> list[int]:
        stream = engine.generate(prompt, Sampling(max_tokens=NUM_TOKENS, ignore_eos=True))
        return [token async for delta in stream for token in delta.token_ids]

    return list(await asyncio.gather(*map(one, asked)))


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_the_other_engine(tmp_path: Path, family: str) -> None:
    export_language(str(write(family, tmp_path / "model")), tmp_path / "language")
    folder = tmp_path / "language"
    other = TransformersEngine(load_language_model(folder, "fp32"), Limits(), 16)
    asked = prompts(folder)
    expected = asyncio.run(answers(other, asked))
    other.close()
    engine = VllmEngine.load(folder, Limits(max_kv_bytes=KV_BYTES), LOOP, "fp32", 1, {"block_size": 32})
    assert run(answers(engine, asked)) == expected
    engine.close()
