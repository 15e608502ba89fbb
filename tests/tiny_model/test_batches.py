"""Training data is what the served model will see: positions, order, and questions that do not see each other."""

from random import Random

import numpy as np
import torch
from transformers import Qwen3VLForConditionalGeneration

from tests.conftest import CHECKPOINT
from tiny_model.architecture import tiny_config
from tiny_model.batches import IGNORE, Collator, draw_item
from tiny_model.vocabulary import build_tokenizer
from tiny_model.windows import random_windows


def test_positions_of_one_question_are_transformers() -> None:
    tokenizer = build_tokenizer()
    model = Qwen3VLForConditionalGeneration(tiny_config(tokenizer)).model
    for kind in ("shapes", "slideshow"):
        item = draw_item(Random(1), kind, 128, 96, 3)
        del item.questions[1:]
        batch = Collator(tokenizer)([item])
        ids = batch.input_ids
        kinds = (ids == model.config.image_token_id).int() + 2 * (ids == model.config.video_token_id).int()
        grids = {"video_grid_thw" if item.is_video else "image_grid_thw": batch.grid_thw}
        oracle, _ = model.get_rope_index(ids, kinds, **grids)
        torch.testing.assert_close(batch.position_ids, oracle)


def test_branches_do_not_see_each_other() -> None:
    """A question asked beside others is answered as when asked alone."""
    model = Qwen3VLForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    tokenizer = build_tokenizer()
    item = draw_item(Random(2), "shapes", 128, 96)
    from dataclasses import replace

    from tiny_model.evaluate import predictions

    collate = Collator(tokenizer)
    together = collate([item])
    guesses = predictions(model, together)
    for number, question in enumerate(item.questions):
        alone = collate([replace(item, questions=[question])])
        mine = (together.branches == number) & (together.labels != IGNORE)
        torch.testing.assert_close(guesses[mine], predictions(model, alone)[alone.labels != IGNORE])


def test_full_window_is_the_towers_own_interpolation() -> None:
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    class Whole(Random):
        """Always the whole table."""

        def uniform(self, a: float, b: float) -> float:
            return 1.0 if b == 1.0 else 0.0

    grid = torch.tensor([[2, 6, 8], [1, 4, 4]])
    ours = random_windows(Whole(), grid, 12)
    indices, weights = get_vision_interpolation_indices_and_weights(grid, 12, align_corners=True, spatial_merge_size=2)
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(144, 5)).astype(np.float32))
    want = (table[indices] * weights[..., None]).sum(1)
    got = (table[ours["interp_indices"]] * ours["interp_weights"][..., None]).sum(1)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
