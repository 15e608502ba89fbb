"""The light engine: transformers' own language model, which one thread steps; requests join and leave at every step.

This file is the life around the steps: which requests wait, which run, what each gets, and what happens when a step
fails. What a step computes is in serving.transformers_engine.step; whoever needs more than that takes an engine such as
vLLM.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import torch

from contract.errors import DeadlineExceeded, EdgeVlmError, InvalidInput, ServerError, Unavailable
from contract.limits import Limits
from contract.prompt import Prompt
from contract.sampling import Sampling
from contract.tasks import GENERATE
from serving.engine import FAILED, Delta, Stats, check_choice
from serving.grammars.constraint import Constraint
from serving.grammars.trials import Trials
from serving.transformers_engine.checkpoint import LanguageModel, load_language_model
from serving.transformers_engine.kv import kv_bytes
from serving.transformers_engine.sequence import Sequence, max_new_tokens
from serving.transformers_engine.step import Piece, forward, plan, warm_up

log = logging.getLogger(__name__)
# Prompt tokens a step. On a CPU more are no faster, and streams wait; a GPU computes 4096 in the time of 128.
PREFILL_CHUNK_TOKENS = {"cpu": 128, "cuda": 4096}
ONE_TOKEN = Sampling(max_tokens=1, ignore_eos=True)  # a task without tokens reserves no more behind its prompt


class TransformersEngine:
    """An `Engine` over a LanguageModel. It owns one thread, which `close` ends."""

    def __init__(
        self, model: LanguageModel, limits: Limits | None = None, prefill_chunk_tokens: int | None = None
    ) -> None:
        self._model, self._limits = model, limits or Limits()
        self._prefill_chunk_tokens = prefill_chunk_tokens or PREFILL_CHUNK_TOKENS[model.device.type]
        self._trials = Trials()
        self._waiting: deque[Sequence] = deque()
        self._active: list[Sequence] = []
        self._stats = Stats(max_kv_bytes=self._limits.max_kv_bytes)
        self._death: EdgeVlmError | None = None
        self._advanced_seconds = time.monotonic()  # when a step ended, or work came
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls, folder: Path, limits: Limits, dtype: str = "auto", num_threads: int | None = None
    ) -> "TransformersEngine":
        """Load a language checkpoint. num_threads sets the number of torch's threads in the whole process.

        Raises:
            BundleError: see load_language_model.
        """
        if num_threads:
            torch.set_num_threads(num_threads)
        model = load_language_model(folder, dtype)
        warm_up(model)
        return cls(model, limits)

    async def generate(self, prompt: Prompt, sampling: Sampling, task: str = GENERATE) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        if task != GENERATE:
            sampling = ONE_TOKEN
        self._check_can(prompt, sampling)
        self._check_room()
        grammar = None
        if sampling.structured_outputs is not None:
            grammar = await self._trials.grammar(Constraint.read(sampling.structured_outputs))
        loop = asyncio.get_running_loop()
        sequence = await asyncio.to_thread(Sequence, self._model, prompt, sampling, loop, grammar, task)
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
            num_active = sum(not s.is_ended for s in self._active)
            return replace(
                self._stats, num_active=num_active, num_waiting=len(self._waiting), kv_bytes=self._kv_bytes()
            )

    def is_dead(self) -> bool:
        """See `Engine.is_dead`."""
        return isinstance(self._death, ServerError)

    def stalled_seconds(self) -> float:
        """See `Engine.stalled_seconds`."""
        has_work = bool(self._active or self._waiting)
        return time.monotonic() - self._advanced_seconds if has_work else 0.0

    def close(self) -> None:
        """See `Engine.close`."""
        with self._changed:
            self._death = self._death or Unavailable("the engine is shutting down: try again later")
            self._changed.notify()
        self._trials.close()
        self._thread.join()

    def _check_can(self, prompt: Prompt, sampling: Sampling) -> None:
        if not sampling.max_tokens:
            raise InvalidInput("max_tokens is 0, at least 1 is expected: an engine answers with one token or more")
        check_choice(sampling, self._model.end_ids, self._model.card.vocab_size)
        need = kv_bytes(self._model, prompt.input_ids.size + max_new_tokens(self._model, prompt, sampling))
        if need > self._limits.max_kv_bytes:
            raise InvalidInput(
                f"the prompt and max_tokens need {need} bytes of keys and values, {self._limits.max_kv_bytes} are "
                "allowed: ask for fewer tokens or send smaller pictures",
                check="kv-bytes",
            )

    def _check_room(self) -> None:
        if self._death:
            raise type(self._death)(str(self._death))
        running, room = len(self._active) + len(self._waiting), self._limits.max_active + self._limits.max_waiting
        if running >= room:
            raise Unavailable(
                f"{running} requests are running or waiting, {room} are allowed: try again later", check="queue"
            )

    def _run(self) -> None:
        try:
            while self._turn_over():
                self._fail_stuck()
                self._step(plan(self._active, self._prefill_chunk_tokens))
                self._advanced_seconds = time.monotonic()
        except Exception:
            log.exception("the engine died")
            self._death = ServerError("the engine died, its log says why: restart the server")
        with self._changed:
            for sequence in (*self._active, *self._waiting):
                sequence.send(self._death or ServerError("the engine stopped: ask again once the server runs again"))
            self._active.clear()
            self._waiting.clear()

    def _turn_over(self) -> bool:
        """Remove finished requests and admit waiting ones; sleeps while idle. False when the engine closes."""
        with self._changed:
            gone = [s for s in (*self._active, *self._waiting) if s.is_cancelled and not s.is_ended]
            self._count(num_cancelled=len(gone))
            self._active = [s for s in self._active if not (s.is_ended or s.is_cancelled)]
            self._waiting = deque(s for s in self._waiting if not s.is_cancelled)
            if not (self._waiting or self._active):
                self._changed.wait_for(lambda: self._death or self._waiting)
                self._advanced_seconds = time.monotonic()
            while self._waiting and self._has_room(self._waiting[0]):
                self._begin(self._waiting.popleft())
            latest = time.monotonic() - self._limits.max_queue_seconds
            while self._waiting and self._waiting[0].arrived_seconds < latest:
                error = f"no slot became free within {self._limits.max_queue_seconds} s: try again later"
                self._fail(self._waiting.popleft(), DeadlineExceeded(error, check="queue-time"))
            return self._death is None

    def _has_room(self, sequence: Sequence) -> bool:
        """No request overtakes the first in the queue, so a large one gets its turn."""
        has_slot = len(self._active) < self._limits.max_active
        return has_slot and self._kv_bytes() + sequence.kv_bytes <= self._limits.max_kv_bytes

    def _begin(self, sequence: Sequence) -> None:
        try:
            sequence.begin()
        except RuntimeError:  # torch's for memory
            log.exception("no memory for a request")
            self._fail(sequence, Unavailable("the server has no memory for this request now: try again later"))
        else:
            self._active.append(sequence)

    def _kv_bytes(self) -> int:
        return sum(sequence.kv_bytes for sequence in self._active)

    def _fail_stuck(self) -> None:
        """No step ends a request that has nothing to compute; the checks refuse one."""
        for sequence in self._active:
            if sequence.num_cached == sequence.num_known:
                log.error("a request has nothing to compute")
                self._fail(sequence, ServerError(FAILED))

    def _step(self, pieces: list[Piece]) -> None:
        """Run the pieces through the model at once. Where that fails, run each alone: one request is at fault."""
        if not pieces:
            return
        try:
            found = forward(self._model, pieces)  # a piece: logits (V,), or a state (H,)
            are_finite = torch.stack([torch.isfinite(values).all() for values in found]).tolist()
        except torch.AcceleratorError:  # the device is lost, and with it every cache
            raise
        except Exception:
            log.exception("a step of %d requests failed", len(pieces))
            for piece in pieces:
                piece.undo()
            if len(pieces) == 1:
                self._fail(pieces[0].sequence, ServerError(FAILED))
            else:
                for piece in pieces:
                    self._step([piece])
            return
        for piece, row, is_finite in zip(pieces, found, are_finite, strict=True):
            sequence, sequence.num_cached = piece.sequence, piece.end
            if not is_finite:
                self._fail(sequence, sequence.not_finite())
            elif piece.end == sequence.num_known:
                self._answer(sequence, row)

    def _answer(self, sequence: Sequence, values: torch.Tensor) -> None:
        try:
            delta = sequence.accept(values) if sequence.task == GENERATE else sequence.pool(values)
        except InvalidInput as error:  # the request's grammar became too large
            self._fail(sequence, error)
            return
        except Exception:
            log.exception("a request failed")
            self._fail(sequence, ServerError(FAILED))
            return
        is_first = sequence.num_answered <= 1
        with self._changed:
            sequence.is_ended = delta.finish_reason is not None
            self._count(
                num_output_tokens=len(delta.token_ids),
                num_input_tokens=sequence.num_prompt_tokens if is_first else 0,
                num_finished=int(sequence.is_ended),
            )
        sequence.send(delta)

    def _fail(self, sequence: Sequence, error: EdgeVlmError) -> None:
        with self._changed:
            sequence.is_ended = True
            self._count(num_failed=1)
        sequence.send(error)

    def _count(self, **added: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in added.items()})
