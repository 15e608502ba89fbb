"""Triton's adapter to an engine: tensors in, a stream of responses out, one asyncio task a request.

Triton's side of the work only: what a request means is serving.requests.request, what a response holds serving.requests.answer. Rules
that the server's behaviour forces: an error after the first response must not be a Triton error (a BLS caller would
hang), the final flag must be sent whatever happens (a client would), and cancellation has to be asked for.
"""

import asyncio
import json
import locale
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from contract.codecs.numbers import read_numbers
from contract.errors import DeadlineExceeded, EdgeVlmError, NotFound, ServerError, Unavailable
from contract.language import read_language_card
from serving.engine import Delta
from serving.loop import LoopThread
from serving.metrics import Meter, Timing
from serving.requests.answer import CANCELLED
from serving.requests.request import RequestParser, flag
from serving.requests.store import ReuseStore
from serving.requests.tokenizer import load_tokenizer
from serving.settings import Settings
from triton_models.job import Job
from triton_models.replies import FINAL, failure, refuse_copies, unexpected

POLL_SECONDS = 0.05
NUM_KEEPERS = 2  # threads that hash and copy, so many that uploads leave cores to the engine


class TritonPythonModel:
    def initialize(self, args):
        refuse_copies(args)
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # the stub starts in the C locale, whatever the environment says
        settings = Settings.read(Path(args["model_repository"]) / args["model_version"])
        if settings.needs_numpy_below_2 and int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} corrupts tensors in this Triton: run python -m serving --prepare, which makes an environment with numpy 1"
            )
        folder = Path(settings.model)
        self.num_places = settings.limits.max_active + settings.limits.max_waiting
        self.keepers = ThreadPoolExecutor(NUM_KEEPERS, thread_name_prefix="keeper")
        self.sender = ThreadPoolExecutor(1, thread_name_prefix="sender")  # more than one took cores from the engine
        self.store = ReuseStore(settings.limits.max_reuse_bytes)
        card = read_language_card(folder)
        numbers = read_numbers(folder, card.hidden_size, card.num_deepstack_levels)
        self.parser = RequestParser(card, settings.limits, load_tokenizer(folder), self.store, numbers)
        self.thread = LoopThread("streams")
        self.loop = self.thread.loop
        self.engine = settings.load_engine(self.thread)
        self.meter = Meter(pb_utils.MetricFamily)
        self.jobs = set()
        self.closing = threading.Event()
        self.watcher = threading.Thread(target=self.watch, name="watcher", daemon=True)
        self.watcher.start()

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                self.accept(request, sender)
            except Exception as error:
                known = error if isinstance(error, EdgeVlmError) else unexpected()
                self.meter.failed(known)
                sender.send(failure(known), flags=FINAL)

    def accept(self, request, sender):
        timing = Timing(self.meter)
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if self.engine.is_dead():  # told to everyone, so also to the health check, which has the server replaced
            raise ServerError("the engine died: the server is about to be started again")
        if flag(tensors, "cancel", False):
            self.loop.call_soon_threadsafe(self.cancel, request.request_id(), sender)
            return
        parsed = self.parser.parse(tensors, json.loads(request.parameters() or "{}"))
        job = Job(request, sender, parsed, timing, self.sender)
        self.loop.call_soon_threadsafe(self.start, job)

    def start(self, job):
        job.task = self.loop.create_task(self.serve(job))
        self.jobs.add(job)
        job.task.add_done_callback(lambda _: self.end(job))

    def cancel(self, request_id, sender):
        found = [job for job in self.jobs if job.id == request_id]
        for job in found:
            job.task.cancel()
        missing = failure(NotFound(f"no request with id {request_id!r} is running"))
        sender.send(pb_utils.InferenceResponse([]) if found else missing, flags=FINAL)

    async def serve(self, job):
        prompt = job.parsed.prompt
        keys = self.loop.run_in_executor(self.keepers, self.store.keep, prompt.contents)  # while the prompt is read
        try:
            job.check_time()
            if job.parsed.sampling.max_tokens == 0:
                if len(self.jobs) > self.num_places:  # the engine, which bounds the others, is not asked
                    raise Unavailable(f"{self.num_places} requests are running or waiting: try again later")
                job.keys = await keys
                job.put(Delta((), "", "length"))
                return
            async with aclosing(self.engine.generate(prompt, job.parsed.sampling)) as deltas:
                async for delta in deltas:
                    job.timing.add(delta)
                    if not job.num_tokens:
                        job.keys = await keys
                    job.put(delta)
        except Exception as error:
            known = error if isinstance(error, EdgeVlmError) else unexpected()
            if not job.is_ended:
                job.fail(known)

    def end(self, job):
        """A cancelled task ends without a last response, even before its first line, so it is sent here."""
        self.jobs.discard(job)
        how = "answered" if job.is_ended else "cancelled"
        pb_utils.Logger.log_info(f"request {job.id!r} {how}, tokens: {job.num_tokens}")
        if not job.is_ended:
            try:
                job.check_time()
                job.put(Delta((), "", CANCELLED))
            except DeadlineExceeded as error:
                job.fail(error)

    def watch(self):
        """In a thread: look after requests that produce no tokens, and publish what happened. Both ask Triton."""
        while not self.closing.wait(POLL_SECONDS):
            try:
                for job in list(self.jobs):
                    if job.is_abandoned():
                        self.loop.call_soon_threadsafe(job.task.cancel)
                self.meter.publish(vars(self.engine.stats()) | vars(self.store.stats()))
            except Exception:
                unexpected()  # logged; the next round tries again

    def finalize(self):
        self.closing.set()
        self.watcher.join(5)
        self.engine.close()  # every running request ends with Unavailable
        self.thread.submit(self.drain()).result(5)
        self.thread.close(5)
        self.sender.shutdown()
        self.keepers.shutdown(cancel_futures=True)

    async def drain(self):
        await asyncio.gather(*(job.task for job in self.jobs), return_exceptions=True)
