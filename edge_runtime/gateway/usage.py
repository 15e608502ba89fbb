"""The numbers of tokens of a prompt and its answer, by what the tokens stand for."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from contract.card import ModelCard
from edge_runtime.request import Request


@dataclass(frozen=True)
class PromptTokens:
    """How many tokens of a prompt stand for text, pictures and videos; num_text counts all that are no row's pad."""

    num_text: int
    num_image: int
    num_video: int

    @classmethod
    def of(cls, request: Request, card: ModelCard) -> "PromptTokens":
        image = int(np.count_nonzero(request.input_ids == card.image_token_id))
        video = int(np.count_nonzero(request.input_ids == card.video_token_id))
        return cls(len(request.input_ids) - image - video, image, video)

    @property
    def total(self) -> int:
        return self.num_text + self.num_image + self.num_video


def usage(prompt: PromptTokens, num_tokens: int, num_reasoning_tokens: int = 0) -> dict[str, Any]:
    """OpenAI's usage object of chat completions."""
    return {
        "prompt_tokens": prompt.total,
        "completion_tokens": num_tokens,
        "total_tokens": prompt.total + num_tokens,
        "completion_tokens_details": {"reasoning_tokens": num_reasoning_tokens},
        "prompt_tokens_details": {
            "text_tokens": prompt.num_text,
            "image_tokens": prompt.num_image,
            "video_tokens": prompt.num_video,
        },
    }
