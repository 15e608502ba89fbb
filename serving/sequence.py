"""One running request of the transformers engine: its prompt's tensors, its cache, its position, its way back.

Everything that differs between requests lives here, rope_delta too: on the module, where transformers keeps it,
interleaved requests would overwrite each other's.
"""

import asyncio
from typing import Any

import torch
from transformers import DynamicCache

from contract.errors import EdgeVlmError, InvalidInput
from contract.prompt import Prompt
from contract.sampling import Sampling
from serving.checkpoint import LanguageModel
from serving.engine import Delta
from serving.positions import mrope_positions
from serving.selection import Selection
from serving.text import TextStream


class Sequence:
    """A request from its admission to its last token. Read in the caller's event loop, stepped by the engine's thread.

    Raises:
        InvalidInput: an embedding value is too large for the model's number format.
    """

    def __init__(
        self, model: LanguageModel, prompt: Prompt, sampling: Sampling, loop: asyncio.AbstractEventLoop
    ) -> None:
        card = model.card
        positions, self.rope_delta = mrope_positions(
            prompt.input_ids,
            prompt.image_grid_thw,
            prompt.video_grid_thw,
            card.image_token_id,
            card.video_token_id,
            card.merge_size,
        )
        self.input_ids = torch.tensor(prompt.input_ids, device=model.device)  # (S,)
        self.positions = torch.tensor(positions, device=model.device)  # (3, S)
        pads = torch.tensor([card.image_token_id, card.video_token_id], device=model.device)
        self.is_visual = torch.isin(self.input_ids, pads)  # (S,)
        self.main = _embeddings("vision_embeddings", prompt.main, model)  # (N, H)
        self.deepstack = _embeddings("deepstack_embeddings", prompt.deepstack, model)  # (L, N, H)
        self.cache = DynamicCache(config=model.decoder.config)
        self.num_cached = 0  # tokens of prompt and answer whose keys are in the cache
        self.num_cached_rows = 0  # embedding rows among them
        self.token_ids: list[int] = []
        self.is_ended = False
        self.is_cancelled = False  # by the reader
        self._sampling = sampling
        self._end_ids = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else model.end_ids)
        self._max_tokens = min(sampling.max_tokens, max(1, card.max_position_embeddings - prompt.input_ids.size))
        self._selection = Selection(sampling, self.input_ids, self._max_tokens, self._end_ids)
        self._text = TextStream(model.tokenizer, sampling.stop)
        self._loop = loop
        self._deltas: asyncio.Queue[Delta | EdgeVlmError] = asyncio.Queue()  # max_tokens bounds it

    @property
    def num_prompt_tokens(self) -> int:
        return self.input_ids.numel()

    def accept(self, logits: torch.Tensor) -> Delta:
        """Choose the next token from logits (V,) and say what it adds to the answer."""
        token = self._selection.choose(logits)
        self.token_ids.append(token)
        count = len(self.token_ids)
        may_stop = count >= self._sampling.min_tokens
        if token in self._end_ids and may_stop:
            return Delta((token,), self._text.flush(), "stop")
        text, is_stopped = self._text.push(token, may_stop=may_stop)
        if is_stopped:
            return Delta((token,), text, "stop")
        if count == self._max_tokens:
            return Delta((token,), text + self._text.flush(), "length")
        return Delta((token,), text)

    def send(self, item: Delta | EdgeVlmError) -> None:
        """Hand a delta or the request's failure to the reader; called from the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._deltas.put_nowait, item)
        except RuntimeError:  # the reader's loop is closed
            self.is_cancelled = True

    async def receive(self) -> Delta:
        """The next delta, or the request's failure raised."""
        item = await self._deltas.get()
        if isinstance(item, EdgeVlmError):
            raise item
        return item


def _embeddings(name: str, values: Any, model: LanguageModel) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=model.dtype, device=model.device)
    if not torch.isfinite(tensor).all():  # float32 above 65504 becomes inf in float16
        raise InvalidInput(
            f"{name} has values too large for {model.dtype}, in which this server runs: scale or clip them"
        )
    return tensor
