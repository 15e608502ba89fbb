"""Triton's adapter to an engine: tensors in, a stream of responses out, one asyncio task a request.

This file has Triton's side of the work only: serving.requests.request reads a request, serving.requests.answer writes a
response. Triton's behaviour forces three rules: an error after the first response must not be a Triton error (a BLS
caller would hang), the final flag must be sent whatever happens (a client would), and cancellation has to be asked for.
"""

import asyncio
import locale
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from contract.codecs.numbers import read_numbers
from contract.errors import DeadlineExceeded, NotFound, ServerError, Unavailable, shown
from contract.language import read_language_card
from serving.engine import Delta
from serving.loop import LoopThread
from serving.metrics import Meter, Timing
from serving.requests.answer import CANCELLED
from serving.requests.request import ParsedRequest, RequestParser
from serving.requests.shared_store import SharedStore
from serving.requests.store import ReuseStore
from serving.requests.tokenizer import load_tokenizer
from serving.requests.values import flag
from serving.settings import Settings
from serving.tasks import served_tasks
from triton_models.door import Watcher, accept_each, as_known, cancelled_id, parameters
from triton_models.job import Job
from triton_models.replies import FINAL, failure, refuse_copies

STALL_SECONDS = 120  # without a step that ends: no model takes so long for a piece of a prompt
NUM_READERS = 2  # threads that tokenise and check; the streams' loop and Triton's thread do neither
NUM_KEEPERS = 2  # threads that hash and copy, so many that uploads leave cores to the engine


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        refuse_copies(args)
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # the stub starts in the C locale, whatever the environment says
        settings = Settings.read(Path(args["model_repository"]) / args["model_version"])
        if settings.needs_numpy_below_2 and int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} corrupts tensors in this Triton: run python -m serving --prepare, which makes an environment with numpy 1"
            )
        folder = Path(settings.model)
        self.num_places = settings.limits.max_active + settings.limits.max_waiting
        self.readers, self.num_reading = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="reader"), 0
        self.keepers = ThreadPoolExecutor(NUM_KEEPERS, thread_name_prefix="keeper")
        self.sender = ThreadPoolExecutor(1, thread_name_prefix="sender")  # more than one took cores from the engine
        shared = SharedStore(settings.reuse_store) if settings.reuse_store else None
        self.store = ReuseStore(settings.limits.max_reuse_bytes, shared)
        card = read_language_card(folder)
        numbers = read_numbers(folder, card.hidden_size, card.num_deepstack_levels)
        tokenizer, tasks = load_tokenizer(folder), served_tasks(settings)
        self.parser = RequestParser(card, settings.limits, tokenizer, self.store, numbers, tasks)
        self.thread = LoopThread("streams")
        self.loop = self.thread.loop
        self.engine = settings.load_engine(self.thread)
        self.meter = Meter(pb_utils.MetricFamily)
        self.jobs: set[Job] = set()
        self.watcher = Watcher(self.look)

    def execute(self, requests: Sequence[Any]) -> None:
        accept_each(requests, self.accept, self.meter.failed)

    def accept(self, request: Any, sender: Any) -> None:
        """Do what costs nothing here, in Triton's only thread of this process; a reader does the rest."""
        timing = Timing(self.meter)
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        self.check_engine()
        if flag(tensors, "cancel", False):
            self.loop.call_soon_threadsafe(self.cancel, cancelled_id(request), sender)
            return
        fields, timeout_us = parameters(request)
        job = Job(request, sender, timeout_us, timing, self.sender)
        self.loop.call_soon_threadsafe(self.start, job, tensors, fields)

    def check_engine(self) -> None:
        """Refuse every request of a failed engine, the health check's too, so that the guardian replaces the server."""
        if self.engine.is_dead():
            raise ServerError("the engine died: the server is about to be started again", check="engine")
        if self.engine.stalled_seconds() > STALL_SECONDS:
            raise ServerError("the engine makes no progress: the server is about to be started again", check="engine")

    def start(self, job: Job, tensors: dict[str, Any], fields: dict[str, Any]) -> None:
        job.task = self.loop.create_task(self.serve(job, tensors, fields))
        self.jobs.add(job)
        job.task.add_done_callback(lambda _: self.end(job))

    def cancel(self, request_id: str, sender: Any) -> None:
        found = [job for job in self.jobs if job.id == request_id]
        for job in found:
            self.end_task(job)
        missing = failure(NotFound(f"no request with id {shown(request_id)} is running", check="cancel"))
        sender.send(pb_utils.InferenceResponse([]) if found else missing, flags=FINAL)

    @staticmethod
    def end_task(job: Job) -> None:
        if job.task is not None:
            job.task.cancel()

    async def read(self, job: Job, tensors: dict[str, Any], fields: dict[str, Any]) -> ParsedRequest:
        """The checked request. Where its client leaves meanwhile, the reader stops at its next piece of text."""
        if self.num_reading >= self.num_places:
            raise Unavailable(f"{self.num_places} requests are being read: try again later", check="queue")
        self.num_reading += 1
        try:
            parsed = await self.loop.run_in_executor(
                self.readers, lambda: self.parser.parse(tensors, fields, lambda: not job.is_left)
            )
        finally:
            self.num_reading -= 1
        job.read(parsed)
        return parsed

    async def serve(self, job: Job, tensors: dict[str, Any], fields: dict[str, Any]) -> None:
        try:
            parsed = await self.read(job, tensors, fields)
            tensors.clear()
            prompt = parsed.prompt
            keys = self.loop.run_in_executor(
                self.keepers, self.store.keep, prompt.contents
            )  # beside the prompt's steps
            job.check_time()
            if parsed.sampling.max_tokens == 0:
                if len(self.jobs) > self.num_places:  # the engine, which bounds the others, is not asked
                    raise Unavailable(
                        f"{self.num_places} requests are running or waiting: try again later", check="queue"
                    )
                job.keys = await keys
                job.put(Delta((), "", "length"))
                return
            async with aclosing(self.engine.generate(prompt, parsed.sampling, parsed.task)) as deltas:
                async for delta in deltas:
                    job.timing.add(delta)
                    if not job.num_tokens:
                        job.keys = await keys
                    job.put(delta)
        except asyncio.CancelledError:  # a task that ends with it keeps its frames, and the keys and values with them
            return
        except Exception as error:
            if not job.is_ended:
                job.fail(as_known(error))

    def end(self, job: Job) -> None:
        """Send the last response of a cancelled task, which may end without one, even before its first line."""
        self.jobs.discard(job)
        job.is_left = True
        how = "answered" if job.is_ended else "cancelled"
        pb_utils.Logger.log_info(f"request {job.id!r} {how}, tokens: {job.num_tokens}")
        if not job.is_ended:
            try:
                job.check_time()
                job.put(Delta((), "", CANCELLED))
            except DeadlineExceeded as error:
                job.fail(error)

    def look(self) -> None:
        """The watcher calls this: end requests that nobody waits for, and publish what happened. Both ask Triton."""
        for job in list(self.jobs):
            if job.is_abandoned():
                self.loop.call_soon_threadsafe(self.end_task, job)
        self.meter.publish(vars(self.engine.stats()) | vars(self.store.stats()))

    def finalize(self) -> None:
        self.watcher.end()
        self.engine.close()  # every running request ends with Unavailable
        self.thread.submit(self.drain()).result(5)
        self.thread.close(5)
        self.sender.shutdown()
        self.keepers.shutdown(cancel_futures=True)
        self.store.close()
        self.readers.shutdown(cancel_futures=True)

    async def drain(self) -> None:
        await asyncio.gather(*(job.task for job in self.jobs if job.task), return_exceptions=True)
