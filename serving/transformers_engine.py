"""The light engine: transformers' own language model, stepped by one thread, requests joining and leaving every step.

A step gives every running sequence one piece of work: a bounded chunk of its prompt, or its next token. So streams
interleave, and a long prompt does not silence the others. Only `_forward` would change for decoding in one batch.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import torch

from contract.errors import EdgeVlmError, ServerError, Unavailable
from contract.limits import Limits
from contract.prompt import Prompt
from contract.sampling import Sampling
from serving.checkpoint import LanguageModel, load_language_model
from serving.engine import Delta, Stats
from serving.sequence import Sequence

log = logging.getLogger(__name__)
PREFILL_CHUNK_TOKENS = 512


class TransformersEngine:
    """An `Engine` over a LanguageModel. Owns one thread; `close` ends it."""

    def __init__(
        self, model: LanguageModel, limits: Limits | None = None, prefill_chunk_tokens: int = PREFILL_CHUNK_TOKENS
    ) -> None:
        self._model, self._limits = model, limits or Limits()
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._waiting: deque[Sequence] = deque()
        self._active: list[Sequence] = []
        self._stats = Stats()
        self._death: EdgeVlmError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls, folder: Path, limits: Limits, dtype: str = "auto", num_threads: int | None = None
    ) -> "TransformersEngine":
        """Load a language checkpoint; num_threads are torch's, for the whole process.

        Raises:
            BundleError: the folder is no language checkpoint, or tensors are missing from it.
        """
        if num_threads:
            torch.set_num_threads(num_threads)
        model = load_language_model(folder, dtype)
        with torch.inference_mode():  # the first run allocates; not a client's time
            model.head(model.decoder(input_ids=torch.zeros((1, 8), dtype=torch.long, device=model.device))[0])
        return cls(model, limits)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        self._check_room()
        sequence = await asyncio.to_thread(Sequence, self._model, prompt, sampling, asyncio.get_running_loop())
        with self._changed:
            self._check_room()
            self._waiting.append(sequence)
            self._changed.notify()
        try:
            while True:
                delta = await sequence.receive()
                yield delta
                if delta.finish_reason:
                    return
        finally:
            sequence.is_cancelled = True

    def stats(self) -> Stats:
        """See `Engine.stats`."""
        with self._changed:
            return replace(self._stats, num_active=len(self._active), num_waiting=len(self._waiting))

    def is_dead(self) -> bool:
        """See `Engine.is_dead`."""
        return isinstance(self._death, ServerError)

    def close(self) -> None:
        """See `Engine.close`."""
        with self._changed:
            self._death = self._death or Unavailable("the engine is shutting down")
            self._changed.notify()
        self._thread.join()

    def _check_room(self) -> None:
        if self._death:
            raise type(self._death)(str(self._death))
        running, room = len(self._active) + len(self._waiting), self._limits.max_active + self._limits.max_waiting
        if running >= room:
            raise Unavailable(f"{running} requests are running or waiting, {room} are allowed: try again later")

    def _run(self) -> None:
        try:
            while self._admit():
                for sequence in self._active:
                    self._advance(sequence)
                self._retire()
        except Exception:
            log.exception("the engine died")
            self._death = ServerError("the engine died: restart the server")
        with self._changed:
            for sequence in (*self._active, *self._waiting):
                sequence.send(self._death or ServerError("the engine stopped"))
            self._active.clear()
            self._waiting.clear()

    def _admit(self) -> bool:
        """Fill free slots from the queue; sleeps while there is nothing to do. False when the engine closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._death or self._waiting or self._active)
            while self._waiting and len(self._active) < self._limits.max_active:
                self._active.append(self._waiting.popleft())
            return self._death is None

    def _retire(self) -> None:
        """Drop sequences that ended. One that was left by its reader before its end counts as cancelled."""
        with self._changed:
            self._count(num_cancelled=sum(s.is_cancelled and not s.is_ended for s in (*self._active, *self._waiting)))
            self._active = [s for s in self._active if not (s.is_ended or s.is_cancelled)]
            self._waiting = deque(s for s in self._waiting if not s.is_cancelled)

    def _advance(self, sequence: Sequence) -> None:
        """One step of one sequence. Its failure is its own."""
        if sequence.is_cancelled:
            return
        try:
            logits = self._forward(sequence)
            if logits is None:
                return
            if not torch.isfinite(logits).all():
                raise ServerError("the model gave logits that are not finite: the embeddings may be out of range")
            delta = sequence.accept(logits)
        except EdgeVlmError as error:
            self._fail(sequence, error)
        except Exception:
            log.exception("a request failed")
            self._fail(sequence, ServerError("the engine failed on this request"))
        else:
            is_first = len(sequence.token_ids) == 1
            sequence.is_ended = delta.finish_reason is not None
            with self._changed:
                self._count(
                    num_output_tokens=1,
                    num_input_tokens=sequence.num_prompt_tokens if is_first else 0,
                    num_finished=int(sequence.is_ended),
                )
            sequence.send(delta)

    def _fail(self, sequence: Sequence, error: EdgeVlmError) -> None:
        sequence.is_ended = True
        with self._changed:
            self._count(num_failed=1)
        sequence.send(error)

    def _count(self, **added: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in added.items()})

    @torch.inference_mode()
    def _forward(self, s: Sequence) -> torch.Tensor | None:
        """Run the next tokens of one sequence through the model.

        Returns:
            logits (V,) after the last token, None while the prompt is not through.
        """
        start = s.num_cached
        if start < s.num_prompt_tokens:
            end = min(start + self._prefill_chunk_tokens, s.num_prompt_tokens)
            ids, positions = s.input_ids[start:end], s.positions[:, start:end]  # (n,), (3, n)
        else:
            end = start + 1
            ids = torch.tensor(s.token_ids[-1:], device=self._model.device)  # (1,)
            positions = torch.full((3, 1), start + s.rope_delta, device=self._model.device)
        decoder = self._model.decoder
        embeds = decoder.embed_tokens(ids)  # (n, H)
        visual = s.is_visual[start:end] if start < s.num_prompt_tokens else None  # (n,)
        deepstack: list[torch.Tensor] | None = None
        if visual is not None and (rows := int(visual.sum())):
            chunk = slice(s.num_cached_rows, s.num_cached_rows + rows)
            embeds = embeds.clone()
            embeds[visual] = s.main[chunk]
            deepstack = list(s.deepstack[:, chunk])  # L x (rows, H)
            s.num_cached_rows += rows
        hidden = decoder(
            inputs_embeds=embeds[None],  # (1, n, H)
            position_ids=positions[:, None],  # (3, 1, n)
            past_key_values=s.cache,
            use_cache=True,
            visual_pos_masks=visual[None] if visual is not None and deepstack else None,
            deepstack_visual_embeds=deepstack,
        ).last_hidden_state
        s.num_cached = end
        if end < s.num_prompt_tokens:
            return None
        logits: torch.Tensor = self._model.head(hidden[0, -1])  # (V,)
        return logits
