"""The engine that scales out: vLLM behind the same protocol as the transformers engine.

vLLM batches, schedules and caches. This module has the queue before it, so that a full server says so, the way in and
out, and what its failures mean to a client.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from vllm.exceptions import VLLMClientError
from vllm.v1.engine.exceptions import EngineDeadError

from contract.errors import EdgeVlmError, InvalidInput, ServerError, Unavailable
from contract.language import read_language_card
from contract.limits import Limits
from contract.prompt import Prompt, check_prompt
from contract.sampling import Sampling
from contract.tasks import EMBED, GENERATE
from serving.engine import FAILED, Delta, Stats, check_choice
from serving.grammars.constraint import Constraint
from serving.grammars.trials import Trials
from serving.loop import LoopThread
from serving.requests.tokenizer import load_tokenizer
from serving.tasks import POOLING
from serving.transformers_engine.checkpoint import end_ids
from serving.vllm.adapters import adapter, adapters
from serving.vllm.answer import Answer
from serving.vllm.arguments import engine_arguments
from serving.vllm.capacity import kv_bytes_per_token, read_text_config
from serving.vllm.host import Host
from serving.vllm.pooling import STATE, Pooling
from serving.vllm.prompt import engine_input
from serving.vllm.request import VllmRequest, sampling_params
from serving.vllm.slots import CLOSING, Slots
from serving.vllm.tensors import check_tensors

log = logging.getLogger(__name__)
AT_ONCE_BYTES = 1 << 20  # so many bytes of rows take no longer to pack and hash than a thread takes to begin
_DIED = "the engine died and is being restarted: try again"


class VllmEngine:
    """An `Engine` over vLLM, whose processes it owns and `close` ends. All but load, stats and close runs in loop."""

    def __init__(self, folder: Path, host: Host, limits: Limits, loop: LoopThread) -> None:
        self._host, self._limits, self._loop = host, limits, loop
        self._card, self._tokenizer = read_language_card(folder), load_tokenizer(folder)
        facts = host.llm.vllm_config
        model, cache = facts.model_config, facts.cache_config
        self._end_ids, self._dtype = end_ids(folder, model.hf_config), model.dtype
        self._max_tokens = model.max_model_len
        self._adapters = adapters(facts.lora_config.default_mm_loras if facts.lora_config else None)
        value_bytes = 1 if cache.cache_dtype.startswith("fp8") else self._dtype.itemsize
        self._kv_bytes_per_token = kv_bytes_per_token(read_text_config(folder), value_bytes)
        # never more than vLLM runs at once (engine_args.json may say less), so that requests wait in front of it
        max_active = facts.scheduler_config.max_num_seqs * facts.parallel_config.data_parallel_size
        self._slots = Slots(min(limits.max_active, max_active), limits.max_queue_seconds, loop.loop)
        self._stats = Stats(max_kv_bytes=(cache.num_gpu_blocks or 0) * cache.block_size * self._kv_bytes_per_token)
        self._thinks = facts.reasoning_config is not None  # vLLM refuses a budget where it knows no marks
        self._pooling = Pooling(folder) if model.runner_type == POOLING else None
        self._trials = Trials()
        self._names = map(str, count())
        self._running: set[str] = set()  # names in vLLM
        self._num_requests = 0
        self._advanced_seconds = time.monotonic()  # when vLLM gave something, or work came

    @classmethod
    def load(
        cls,
        folder: Path,
        limits: Limits,
        loop: LoopThread,
        dtype: str = "auto",
        num_threads: int | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> "VllmEngine":
        """Start vLLM over a language checkpoint; arguments are those of an engine_args.json. Never call it in loop.

        Raises:
            BundleError: the folder is no language checkpoint, or lacks tensors.
            InvalidInput: vLLM does not have an argument, or it is the server's own.
            ServerError: vLLM did not start.
        """
        given = arguments or {}
        check_tensors(folder, needs_head=given.get("runner") != POOLING)
        host = Host(engine_arguments(folder, limits, dtype, given), loop, num_threads)
        try:
            engine = cls(folder, host, limits, loop)
            loop.submit(engine._warm_up()).result()
        except BaseException:
            host.close()
            raise
        return engine

    async def generate(self, prompt: Prompt, sampling: Sampling, task: str = GENERATE) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        self._check_room()
        if task != GENERATE:
            sampling = Sampling(max_tokens=1)
        check_choice(sampling, self._end_ids, self._card.vocab_size)
        if not self._num_requests:
            self._advanced_seconds = time.monotonic()
        self._num_requests += 1
        is_ended = False
        try:
            if sampling.structured_outputs is not None:
                constraint = Constraint.read(sampling.structured_outputs)
                await self._trials.grammar(constraint)
                sampling = replace(sampling, structured_outputs=constraint.as_given())
            if prompt.main.nbytes + prompt.deepstack.nbytes <= AT_ONCE_BYTES:
                request = self._request(prompt, sampling)
            else:
                request = await asyncio.to_thread(self._request, prompt, sampling)
            run = self._deltas if task == GENERATE else partial(self._pooled, task)
            async with self._slots.hold() as queue_seconds, aclosing(run(request, queue_seconds)) as deltas:
                async for delta in deltas:
                    is_ended = delta.finish_reason is not None
                    yield delta
        except EdgeVlmError:
            is_ended = True
            self._count(num_failed=1)
            raise
        finally:
            self._num_requests -= 1
            self._count(num_cancelled=int(not is_ended))

    def stats(self) -> Stats:
        """See `Engine.stats`."""
        stats = self._stats
        return replace(stats, num_waiting=max(0, self._num_requests - stats.num_active))

    def is_dead(self) -> bool:
        """See `Engine.is_dead`."""
        return not self._slots.is_closed and self._host.is_dead()

    def stalled_seconds(self) -> float:
        """See `Engine.stalled_seconds`."""
        return time.monotonic() - self._advanced_seconds if self._num_requests else 0.0

    def close(self) -> None:
        """See `Engine.close`."""
        self._trials.close()
        self._loop.submit(self._end()).result()
        self._host.close()

    async def _end(self) -> None:
        self._slots.close()
        await self._host.llm.abort(list(self._running))  # their streams end with an error

    def _check_life(self) -> None:
        if self._slots.is_closed:
            raise Unavailable(CLOSING)
        if self._host.is_dead():
            raise Unavailable(_DIED)

    def _check_room(self) -> None:
        self._check_life()
        room = self._limits.max_active + self._limits.max_waiting
        if self._num_requests >= room:
            raise Unavailable(
                f"{self._num_requests} requests are running or waiting, {room} are allowed: try again later",
                check="queue",
            )

    def _request(self, prompt: Prompt, sampling: Sampling) -> VllmRequest:
        """What vLLM needs of a request. This packs and hashes a MiB in 0.6 ms, so many MiB need a thread."""
        num_tokens = prompt.input_ids.size
        if not sampling.max_tokens:
            raise InvalidInput("max_tokens is 0, at least 1 is expected: an engine answers with one token or more")
        max_tokens = min(sampling.max_tokens, max(1, self._card.max_position_embeddings - num_tokens))
        if num_tokens + max_tokens > self._max_tokens:
            raise InvalidInput(
                f"the request needs {num_tokens} tokens and up to {max_tokens} more, this server has room for "
                f"{self._max_tokens}: send smaller pictures, less text, or a smaller max_tokens",
                check="kv-bytes",
            )
        ends = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else self._end_ids)
        return VllmRequest(
            engine_input(prompt, self._card, self._dtype),
            adapter(self._adapters, prompt),
            sampling_params(
                sampling if self._thinks else replace(sampling, thinking_token_budget=None), max_tokens, ends
            ),
            Answer(sampling, self._tokenizer, ends),
            num_tokens,
            (num_tokens + max_tokens) * self._kv_bytes_per_token,
        )

    async def _deltas(self, request: VllmRequest, queue_seconds: float) -> AsyncGenerator[Delta, None]:
        is_first = True
        with self._runs(request) as name:
            stream = self._host.llm.generate(request.prompt, request.params, name, lora_request=request.adapter)
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    self._advanced_seconds = time.monotonic()
                    chunk = output.outputs[0]
                    delta = request.answer.delta(list(chunk.token_ids), chunk.logprobs, chunk.finish_reason)
                    if not delta.token_ids and delta.finish_reason is None:
                        continue
                    self._count(
                        num_output_tokens=len(delta.token_ids),
                        num_input_tokens=request.num_tokens if is_first else 0,
                        num_finished=int(delta.finish_reason is not None),
                    )
                    yield replace(delta, queue_seconds=queue_seconds) if is_first else delta
                    is_first = False
                    if delta.finish_reason:
                        return

    async def _pooled(self, task: str, request: VllmRequest, queue_seconds: float) -> AsyncGenerator[Delta, None]:
        """The one delta of a task without tokens."""
        if self._pooling is None:
            raise InvalidInput(f"task is {task!r}, and vLLM runs this model for tokens: start another server for it")
        with self._runs(request) as name:
            stream = self._host.llm.encode(request.prompt, STATE, name, lora_request=request.adapter)
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    self._advanced_seconds = time.monotonic()
                    found = self._pooling.pooled(task, output.outputs.data)
                    if not np.isfinite(found).all():
                        raise ServerError(
                            "the model gave values that are not finite: the embeddings may be out of range"
                        )
                    self._count(num_input_tokens=request.num_tokens, num_finished=1)
                    yield Delta((), "", "stop", queue_seconds=queue_seconds, pooled=found)
                    return

    @contextmanager
    def _runs(self, request: VllmRequest) -> Iterator[str]:
        """The name under which a request runs in vLLM inside the block, with the client's errors for its failures."""
        name = next(self._names)
        self._running.add(name)
        self._count(num_active=1, kv_bytes=request.kv_bytes)
        try:
            with self._failures():
                yield name
        finally:
            self._running.discard(name)
            self._count(num_active=-1, kv_bytes=-request.kv_bytes)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """The errors for the client in place of vLLM's failures."""
        try:
            yield
        except EdgeVlmError:
            self._check_life()  # an engine that ends gives its requests up first
            raise
        except VLLMClientError as error:
            raise InvalidInput(str(error)) from error
        except EngineDeadError as error:
            raise Unavailable(CLOSING if self._slots.is_closed else _DIED) from error
        except Exception as error:
            log.exception("a request failed")
            raise ServerError(FAILED) from error

    def _count(self, **added: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in added.items()})

    async def _warm_up(self) -> None:
        """Answer one small picture: the first request allocates and compiles, and no client should wait for that."""
        card, side = self._card, self._card.merge_size
        marked = (card.vision_start_token_id, card.image_token_id, card.vision_end_token_id)
        ids = [token for token in marked if token is not None]
        prompt = check_prompt(
            card,
            self._limits,
            input_ids=np.array(ids, np.int64),
            embeddings={
                "vision_embeddings_fp32": np.zeros((1, card.hidden_size), np.float32),
                "deepstack_embeddings_fp32": np.zeros((card.num_deepstack_levels, 1, card.hidden_size), np.float32),
            },
            image_grid_thw=np.array([[1, side, side]], np.int64),
            encoder_fingerprint=card.encoder_fingerprint,
        )
        task = GENERATE if self._pooling is None else EMBED
        async for _ in self.generate(prompt, Sampling(max_tokens=2, ignore_eos=True), task):
            pass
        self._stats = Stats(max_kv_bytes=self._stats.max_kv_bytes)
