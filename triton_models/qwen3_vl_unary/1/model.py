"""The same request with one response, for HTTP infer and unary gRPC, which Triton refuses on a decoupled model.

Asks qwen3_vl through BLS from a pool's threads; execute returns at once, or requests would queue behind each other.
A BLS caller cannot cancel what it asked for, so a watcher sends a control request under the inner request's id. That
id is unique, because clients that number their requests from 1 would otherwise end each other's.
"""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from contract.errors import InvalidInput, NotFound, Unavailable, shown
from contract.tensors import INPUTS
from serving.settings import Settings
from triton_models.bls import answer, call
from triton_models.door import FIELDS, Watcher, accept_each, as_known, cancelled_id, parameters
from triton_models.replies import FINAL, failure, refuse_copies


class Job:
    """A request on its way through qwen3_vl."""

    def __init__(self, request, sender):
        self.client_id, self.inner_id, self.sender = request.request_id(), uuid.uuid4().hex, sender
        named = {spec.name: pb_utils.get_input_tensor_by_name(request, spec.name) for spec in INPUTS}
        self.is_cancel = named["cancel"] is not None and bool(named["cancel"].as_numpy().any())
        if self.is_cancel:
            cancelled_id(request)
        fields, self.timeout_us = parameters(request)
        self.parameters = {FIELDS: json.dumps(fields)} if fields else {}
        self.inputs = [
            tensor for name, tensor in named.items() if tensor is not None and name not in ("stream", "cancel")
        ]
        self.inputs.append(pb_utils.Tensor("stream", np.array([False])))  # (1,)
        self.lock, self.is_answered = threading.Lock(), False

    def answer(self, response):
        with self.lock:
            self.is_answered = True
            self.sender.send(response, flags=FINAL)

    def is_abandoned(self):
        """Triton releases a request with its response; asking about it afterwards would crash the server."""
        with self.lock:
            return not self.is_answered and self.sender.is_cancelled()


class TritonPythonModel:
    def initialize(self, args):
        refuse_copies(args)
        limits = Settings.read(Path(args["model_repository"]) / args["model_version"]).limits
        self.num_places = limits.max_active + limits.max_waiting
        self.pool = ThreadPoolExecutor(self.num_places + 1, thread_name_prefix="unary")  # one is free to cancel
        self.jobs, self.lock = {}, threading.Lock()
        self.watcher = Watcher(self.look)

    def execute(self, requests):
        accept_each(requests, self.accept)

    def accept(self, request, sender):
        job = Job(request, sender)
        with self.lock:
            if job.is_cancel:
                found = [other.inner_id for other in self.jobs.values() if other.client_id == job.client_id]
                if not found:
                    raise NotFound(f"no request with id {shown(job.client_id)} is running", check="cancel")
                self.pool.submit(self.cancel, found, job.sender)
                return
            if len(self.jobs) >= self.num_places:
                raise Unavailable(f"{self.num_places} requests are running or waiting: try again later", check="queue")
            self.jobs[job.inner_id] = job
        self.pool.submit(self.serve, job)

    def serve(self, job):
        try:
            response = self.ask(job)
        except Exception as error:
            response = failure(as_known(error))
        with self.lock:
            del self.jobs[job.inner_id]  # first: who is answered finds a place for the next
        job.answer(response)

    def ask(self, job):
        """The one response of qwen3_vl."""
        if not job.inputs[:-1]:
            raise InvalidInput("neither of input_ids and text_input given: send exactly one of them", check="prompt")
        return pb_utils.InferenceResponse(answer(job.inputs, job.inner_id, job.parameters, job.timeout_us))

    def cancel(self, inner_ids, sender=None):
        for inner_id in inner_ids:
            list(call([pb_utils.Tensor("cancel", np.array([True]))], inner_id))  # (1,); NOT_FOUND: it has just ended
        if sender is not None:
            sender.send(pb_utils.InferenceResponse([]), flags=FINAL)

    def look(self):
        """By the watcher: a client that left sends nothing, so its request is asked."""
        with self.lock:
            jobs = list(self.jobs.values())
        self.cancel([job.inner_id for job in jobs if job.is_abandoned()])

    def finalize(self):
        self.watcher.end()
        self.pool.shutdown(wait=True)
