"""No deepstack, other token ids, other M-RoPE sections: from the checkpoint to the served answer, all from the config."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from contract.language import read_language_card
from contract.limits import Limits
from contract.prompt import check_prompt
from contract.sampling import Sampling
from edge_runtime import Encoder
from edge_runtime.items.item import Item
from export.language import export_language
from export.source.checkpoint import Checkpoint
from export.vision import export_vision
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from tests.export.tiny_checkpoint import OTHER_IDS, change_json, change_token_ids
from tests.processor import pixel_values

IMAGE, _, START, END = OTHER_IDS.values()
GRIDS = ((1, 6, 8), (1, 4, 12))


@pytest.mark.usefixtures("few_packs")
def test_answers_are_those_of_the_whole_model(no_levels: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(no_levels, tmp_path / "model"))
    change_token_ids(model)
    sections = {"text_config__rope_parameters__mrope_section": [2, 3, 3]}
    change_json(model / "config.json", **sections)
    change_json(model / "generation_config.json", eos_token_id=3)  # a token this model does not choose
    export_vision(str(model), tmp_path / "edge")
    export_language(str(model), tmp_path / "language")

    rng = np.random.default_rng(3)
    items = [Item(rng.integers(0, 256, (h * w, 1536), np.uint8), (t, h, w)) for t, h, w in GRIDS]
    pads = [[START, *[IMAGE] * (h * w // 4), END] for _, h, w in GRIDS]
    input_ids = np.array([5, 6, *pads[0], 7, *pads[1], 8, 9], np.int64)
    embeddings = Encoder.from_bundle(tmp_path / "edge").encode(items)
    assert embeddings.deepstack_embeds.shape == (0, 24, 48)
    card = read_language_card(tmp_path / "language")
    prompt = check_prompt(
        card,
        Limits(),
        input_ids=input_ids,
        embeddings={"vision_embeddings_fp32": embeddings.image_embeds},
        image_grid_thw=embeddings.grid_thw,
        video_grid_thw=np.zeros((0, 3), np.int64),
        encoder_fingerprint=card.encoder_fingerprint,
    )
    engine = TransformersEngine(load_language_model(tmp_path / "language", "fp32"))

    async def answer() -> list[int]:
        deltas = [delta async for delta in engine.generate(prompt, Sampling(max_tokens=12))]
        return [token for delta in deltas for token in delta.token_ids]

    got = asyncio.run(answer())
    engine.close()
    image = Checkpoint(model).image
    whole = Qwen3VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    expected = whole.generate(
        input_ids=torch.tensor(input_ids)[None],
        attention_mask=torch.ones(1, len(input_ids), dtype=torch.int64),
        mm_token_type_ids=torch.tensor(input_ids == IMAGE)[None].long(),
        pixel_values=torch.from_numpy(np.concatenate([pixel_values(item, image) for item in items])),
        image_grid_thw=torch.tensor(GRIDS),
        max_new_tokens=12,
        do_sample=False,
    )[0, len(input_ids) :].tolist()
    assert got == expected
    assert len(set(expected)) > 2  # an answer that a wrong picture would change
