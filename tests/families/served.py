"""A family from its checkpoint to what is served of it, and what transformers says to the pixels."""

import asyncio
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contract.card import ModelCard
from contract.codecs.numbers import read_numbers
from contract.embeddings import NAMES
from contract.language import read_language_card
from contract.limits import Limits
from contract.prompt import Prompt, check_prompt
from contract.sampling import Sampling
from edge_runtime import Pipeline, Request
from edge_runtime.encoded_item import Precision
from serving.transformers_engine.engine import TransformersEngine
from tests.families.models import KINDS, picture

NUM_TOKENS = 12
NOT_GIVEN = ("input_ids", "attention_mask", "rows", "cols", "video_metadata")  # to the whole model
GREEDY = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)
Turn = list[Any]  # texts, pictures, and lists of frames
CONVERSATIONS: dict[str, list[Turn]] = {  # the user's turns, and between them the model's
    "one picture": [[picture(90, 60, 1), "What is it?"]],
    "a wide picture behind the text": [["Look: ", picture(300, 60, 2)]],
    "two pictures of different sizes": [[picture(200, 60, 3), " and ", picture(60, 130, 4), "Which?"]],
    "text only": [[" Hello,  world"]],
    "two turns": [[picture(77, 160, 5), "What?"], ["A star."], ["Sure?"]],
    "a picture a turn": [[picture(90, 90, 6), "A?"], ["1"], [picture(50, 160, 7), "B?"]],
}


def clip(side: int) -> list[Any]:
    """Frames of a tile's size, so that no filter stands between the device and transformers' video processor."""
    return [picture(side, side, seed) for seed in (8, 9, 10)]


def conversations(family: str) -> dict[str, list[Turn]]:
    """All that the family takes."""
    if not KINDS[family].video:
        return CONVERSATIONS
    frames = clip(KINDS[family].side)
    return CONVERSATIONS | {
        "video": [[frames, "What happens?"]],
        "a picture and a video": [[picture(90, 60, 1), "then", frames, "What?"]],
    }


@dataclass(frozen=True)
class Served:
    """A family's checkpoint, its bundle on the device, its language model in the engine."""

    model: Path
    bundle: Path
    language: Path
    pipeline: Pipeline
    engine: TransformersEngine
    whole: Any
    reference: Any

    @property
    def card(self) -> ModelCard:
        return read_language_card(self.language)

    def request(self, turns: list[Turn]) -> Request:
        return self.pipeline.request(messages(turns))

    def prompt(self, request: Request, precision: Precision = "fp32") -> Prompt:
        """The checked prompt of a request whose rows travel so."""
        card = self.card
        tensors = request.vision_tensors(request.items, precision)
        return check_prompt(
            card,
            Limits(),
            input_ids=request.input_ids,
            embeddings={name: tensors[name] for name in NAMES if name in tensors},
            image_grid_thw=request.image_grid_thw,
            video_grid_thw=request.video_grid_thw,
            encoder_fingerprint=request.encoder_fingerprint if request.items else None,
            numbers=read_numbers(self.bundle, card.hidden_size, card.num_deepstack_levels),
        )

    def answers(self, request: Request) -> list[int]:
        """As `answer`, to a request whose rows travel in float32."""
        return asyncio.run(self.answer(self.prompt(request)))

    async def answer(self, prompt: Prompt) -> list[int]:
        """Greedy tokens of the transformers engine in this process."""
        return [token async for delta in self.engine.generate(prompt, GREEDY) for token in delta.token_ids]

    def expected(self, turns: list[Turn]) -> list[int]:
        """What the whole model says to the pixels of transformers' processor."""
        inputs = self.inputs(turns)
        ids = inputs["input_ids"]
        given = {name: value for name, value in inputs.items() if name not in NOT_GIVEN}
        lengths = {"max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS, "do_sample": False}
        answer = self.whole.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given, **lengths)
        return list(answer[0, ids.shape[1] :].tolist())

    def inputs(self, turns: list[Turn]) -> Any:
        """What the whole model takes of the turns."""
        made, parts = self.processed(turns), [part for turn in turns for part in turn]
        pictures = [part for part in parts if not isinstance(part, str | list)]
        if pictures and self.card.family == "smolvlm" and any(isinstance(part, list) for part in parts):
            # Its processor has one name for both, and a video's pixels hide a picture's, which come first here.
            whole = self.reference.image_processor([pictures], return_tensors="pt")
            made |= {name: torch.cat([whole[name], made[name]], 1) for name in ("pixel_values", "pixel_attention_mask")}
        return made

    def processed(self, turns: list[Turn]) -> Any:
        """What transformers' processor makes of the turns; the text stays as the template made it."""
        parts = [part for turn in turns for part in turn]
        asked = {"chat_template": self.reference.chat_template, "add_generation_prompt": True, "tokenize": False}
        text = self.reference.apply_chat_template(messages(turns), **asked)  # SmolVLM's takes another for a video
        pictures = [part for part in parts if not isinstance(part, str | list)]
        videos = [np.stack([np.asarray(frame) for frame in part]) for part in parts if isinstance(part, list)]
        given: dict[str, Any] = {"images": [pictures]} if pictures else {}
        if videos:
            facts = {"fps": 2.0, "total_num_frames": 3, "frames_indices": [0, 1, 2]}
            given |= {"videos": [videos], "do_sample_frames": False, "video_metadata": [[facts] * len(videos)]}
        return self.reference(text=[text], **given, return_tensors="pt")


def png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def messages(turns: list[Turn]) -> list[dict[str, Any]]:
    def part(value: Any) -> dict[str, Any]:
        kind = "text" if isinstance(value, str) else "video" if isinstance(value, list) else "image"
        return {"type": kind, kind: value}

    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": [part(value) for value in turn]} for n, turn in enumerate(turns)]
