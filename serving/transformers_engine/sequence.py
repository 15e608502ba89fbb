"""One running request of the transformers engine: its tokens and positions, its cache, its way back to the client.

Everything that differs between requests lives here, rope_delta too: on the module, where transformers keeps it,
interleaved requests would overwrite each other's. Arrays have room for the whole answer, so that a prompt's chunk and
an answer's next token are the same thing: a slice.
"""

import asyncio
import time
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from contract.errors import EdgeVlmError, InvalidInput, ServerError
from contract.items import is_pad
from contract.prompt import Prompt
from contract.sampling import Sampling
from contract.tasks import GENERATE
from serving.engine import Delta
from serving.requests.text import TextStream
from serving.transformers_engine.checkpoint import LanguageModel
from serving.transformers_engine.kv import kv_bytes, reserve
from serving.transformers_engine.logprobs import token_logprob
from serving.transformers_engine.pooling import pooled
from serving.transformers_engine.selection import Selection
from serving.transformers_engine.thinking import Thinking


class Sequence:
    """A request from its arrival to its last token. The caller's event loop reads it, the engine's thread steps it.

    Attributes:
        ids, positions, is_visual: int64 (M,) and (axes, M), bool (M,); M is the prompt and the longest answer. A family
            has one axis of positions or three.
        main, deepstack: the embedding rows (N, H) and (L, N, H) in the model's number format; empty once the answer
            begins.
        num_known: how many of the ids are known; num_cached: how many of those the cache holds.
        kv_bytes: the bytes that `begin` takes for keys and values.
        task: one of contract.tasks.TASKS.

    Raises:
        InvalidInput: an embedding value is too large for the model's number format, or the grammar cannot be compiled.
    """

    cache: Cache

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        sampling: Sampling,
        loop: asyncio.AbstractEventLoop,
        grammar: str | None = None,
        task: str = GENERATE,
    ) -> None:
        self.task = task
        card, self.device, self.num_prompt_tokens = model.card, model.device, prompt.input_ids.size
        self._max_tokens = max_new_tokens(model, prompt, sampling)
        positions, rope_delta = prompt.positions(card)  # (axes, S)
        answer = np.zeros(self._max_tokens, np.int64)
        after = np.arange(self._max_tokens) + self.num_prompt_tokens + rope_delta
        self.ids = np.concatenate([prompt.input_ids, answer])
        self.positions = np.concatenate([positions, np.broadcast_to(after, (len(positions), len(after)))], axis=1)
        self.is_visual = np.concatenate([is_pad(prompt.input_ids, card), answer > 0])
        self.main = _embeddings("vision_embeddings", prompt.main, model)  # (N, H)
        self.deepstack = _embeddings("deepstack_embeddings", prompt.deepstack, model)  # (L, N, H)
        self.num_known, self.num_cached = self.num_prompt_tokens, 0
        self.kv_bytes = kv_bytes(model, self.ids.size)
        self.arrived_seconds = time.monotonic()
        self.is_ended = False
        self.is_cancelled = False  # by the reader
        self._model, self._sampling, self._loop = model, sampling, loop
        self._has_rows = bool(prompt.main.size)
        self._end_ids = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else model.end_ids)
        prompt_ids = torch.from_numpy(prompt.input_ids).to(model.device)
        mask = None
        if grammar is not None:
            from serving.transformers_engine.mask import Mask

            mask = Mask(grammar, model.grammar_tokenizer)
        thinking = None
        if (budget := sampling.thinking_token_budget) is not None:
            thinking = Thinking(budget, model.tokenizer, prompt.input_ids.tolist())
        self._selection = Selection(sampling, prompt_ids, self._max_tokens, self._end_ids, mask, thinking)
        self._text = TextStream(model.tokenizer, sampling.stop, sampling.skip_special_tokens)
        self._deltas: asyncio.Queue[Delta | EdgeVlmError] = asyncio.Queue()  # max_tokens bounds it

    @property
    def num_answered(self) -> int:
        return self.num_known - self.num_prompt_tokens

    def begin(self) -> None:
        """Take the memory for keys and values, and note how long the request waited."""
        self.cache = reserve(self._model, self.ids.size)
        self._queue_seconds = time.monotonic() - self.arrived_seconds

    def rows(self, part: slice) -> slice:
        """The embedding rows of tokens `part`."""
        start = int(self.is_visual[: part.start].sum())
        return slice(start, start + int(self.is_visual[part].sum()))

    def accept(self, logits: torch.Tensor) -> Delta:
        """Choose the next token from logits (V,) and say what it adds to the answer."""
        self.main = self.deepstack = torch.empty(0)  # the prompt is read: its rows are free
        token = self._selection.choose(logits)
        text, reason = self._grow(token)
        num_top = self._sampling.logprobs
        logprobs = () if num_top is None else (token_logprob(logits, token, num_top, self._model.tokenizer),)
        return Delta((token,), text, reason, logprobs, self._queue_seconds)

    def pool(self, values: torch.Tensor) -> Delta:
        """What the last token of the prompt gives, a state (H,) or logits (V,): the only delta of this task."""
        self.main = self.deepstack = torch.empty(0)
        found = pooled(self.task, values, self._model.answer_ids)
        return Delta((), "", "stop", (), self._queue_seconds, found)

    def _grow(self, token: int) -> tuple[str, str | None]:
        """Text that became certain with this token, and why it is the last one."""
        self.ids[self.num_known] = token
        self.num_known += 1
        may_stop = self.num_answered >= self._sampling.min_tokens
        if self._ends(token, may_stop):
            return self._text.flush(), "stop"
        text, is_stopped = self._text.push(token, may_stop=may_stop)
        if is_stopped:
            return text, "stop"
        if self.num_answered == self._max_tokens:
            return text + self._text.flush(), "length"
        return text, None

    def _ends(self, token: int, may_stop: bool) -> bool:
        """Whether a token ends the answer, by itself or, one of the model's own, because the grammar allows no more."""
        return (token in self._end_ids and may_stop) or (self._selection.is_over and token in self._model.end_ids)

    def not_finite(self) -> EdgeVlmError:
        """Why the model gave values that are not finite: finite rows led out of float's range, or the weights do."""
        if self._has_rows:
            return InvalidInput(
                "vision_embeddings and deepstack_embeddings lead to values that are not finite, although each of theirs "
                "is: send the rows as the tower gives them, of the order of 1 to 1000",
                check="number-format",
            )
        return ServerError("the model gave values that are not finite for text alone: its weights are damaged")

    def send(self, item: Delta | EdgeVlmError) -> None:
        """Hand a delta or the request's failure to the reader; called from the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._deltas.put_nowait, item)
        except RuntimeError:  # the reader's loop is closed
            self.is_cancelled = True

    async def receive(self) -> Delta:
        """The next delta; raises the request's failure instead, where there is one."""
        item = await self._deltas.get()
        if isinstance(item, EdgeVlmError):
            raise item
        return item


def max_new_tokens(model: LanguageModel, prompt: Prompt, sampling: Sampling) -> int:
    """Length of the longest answer, as the request and the model's context allow it."""
    return min(sampling.max_tokens, max(1, model.card.max_position_embeddings - prompt.input_ids.size))


def _embeddings(name: str, values: Any, model: LanguageModel) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=model.dtype, device=model.device)
    # the contract checked the values as they came; float32 above 65504 becomes inf in float16
    if model.dtype != torch.float32 and not torch.isfinite(tensor).all():
        raise InvalidInput(
            f"{name} has values too large for {model.dtype}, in which this server runs: scale or clip them",
            check="number-format",
        )
    return tensor
