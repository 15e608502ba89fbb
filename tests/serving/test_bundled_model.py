"""The trained model in every number format: eight answers made together are those of transformers' generate alone.

Trained weights leave little to chance between the first and the second token, so that here tokens can be compared in
16 bits, too; the random ones elsewhere leave ties that rounding decides.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from contract.language import read_language_card
from contract.limits import Limits
from contract.prompt import Prompt, check_prompt
from contract.sampling import Sampling
from edge_runtime import Pipeline
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from tests.conftest import CHECKPOINT
from tests.serving.reference import encoded_inputs
from tiny_model.scenes import shapes_scene, text_scene

NUM_TOKENS = 32


def questions() -> Iterator[Any]:
    random = Random(5)
    for size in ((96, 96), (128, 160), (160, 96), (128, 128)):
        yield shapes_scene(random, *size, 3).image, "Describe the image."
        yield text_scene(random, *size, 3).image, "Read the text."


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_tokens_are_those_of_generate(pipeline: Pipeline, language_folder: Path, dtype: str) -> None:
    card = read_language_card(language_folder)
    model = load_language_model(language_folder, dtype)
    original = Qwen3VLForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=model.dtype).eval()
    prompts = []
    for picture, question in questions():
        request = pipeline.ask(picture, question)
        rows = {"vision_embeddings_fp32": request.main, "deepstack_embeddings_fp32": request.deepstack}
        rest = {"image_grid_thw": request.image_grid_thw, "encoder_fingerprint": request.encoder_fingerprint}
        prompts.append(check_prompt(card, Limits(), input_ids=request.input_ids, embeddings=rows, **rest))
    engine = TransformersEngine(model, prefill_chunk_tokens=40)

    async def one(prompt: Prompt) -> Any:
        sampling = Sampling(max_tokens=NUM_TOKENS)
        return [token async for delta in engine.generate(prompt, sampling) for token in delta.token_ids]

    async def together() -> Any:
        return await asyncio.gather(*map(one, prompts))

    for prompt, answer in zip(prompts, asyncio.run(together()), strict=True):
        inputs = encoded_inputs(prompt, card, model.dtype)
        original.model.rope_deltas = None
        with torch.no_grad():
            expected = original.generate(
                **inputs,
                attention_mask=torch.ones_like(inputs["input_ids"]),
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
            )[0, prompt.input_ids.size :].tolist()
        assert answer == expected
        assert len(answer) > 3
    engine.close()
