"""Answers requests by asking another model of this server, through BLS, from a pool's threads.

`execute` returns at once, or requests would queue behind each other. A BLS caller cannot cancel what it asked for, so a
watcher sends a control request under the inner request's id. That id is unique, because clients that number their
requests from 1 would otherwise end each other's.
"""

import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from contract.errors import NotFound, Unavailable, shown
from contract.tensors import TensorSpec
from serving.settings import Settings
from triton_models.bls import call
from triton_models.door import FIELDS, Watcher, accept_each, as_known, cancelled_id, parameters
from triton_models.replies import FINAL, failure, refuse_copies


class Forwarded:
    """A request on its way through another model.

    Attributes:
        inputs: its tensors by name, without `cancel`.
        parameters: the parameters of the inner request; FIELDS holds the client's JSON fields.
    """

    def __init__(self, request: Any, sender: Any, specs: Sequence[TensorSpec]) -> None:
        self.client_id, self.inner_id, self.sender = request.request_id(), uuid.uuid4().hex, sender
        named = {spec.name: pb_utils.get_input_tensor_by_name(request, spec.name) for spec in specs}
        self.inputs = {name: tensor for name, tensor in named.items() if tensor is not None}
        cancel = self.inputs.pop("cancel", None)
        self.is_cancel = cancel is not None and bool(cancel.as_numpy().any())
        if self.is_cancel:
            cancelled_id(request)
        fields, self.timeout_us = parameters(request)
        self.parameters: dict[str, str] = {FIELDS: json.dumps(fields)} if fields else {}
        self.output_names = request.requested_output_names()
        self._lock, self._is_answered = threading.Lock(), False

    def send(self, response: Any, is_last: bool = True) -> None:
        with self._lock:
            self._is_answered = is_last
            self.sender.send(response, flags=FINAL if is_last else 0)

    def is_abandoned(self) -> bool:
        """Whether the client has left. Triton releases a request with its last response; a later look crashes it."""
        with self._lock:
            return not self._is_answered and bool(self.sender.is_cancelled())


class Forwarder:
    """The requests of one model that asks another one.

    Args:
        args: what Triton gives to `initialize`.
        specs: the inputs that it passes on.
        ask: sends all responses of a Forwarded but the last, which it returns; runs in a thread of the pool.
    """

    def __init__(self, args: Mapping[str, str], specs: Sequence[TensorSpec], ask: Callable[[Forwarded], Any]) -> None:
        refuse_copies(args)
        limits = Settings.read(Path(args["model_repository"]) / args["model_version"]).limits
        self._specs, self._ask = specs, ask
        self._can_cancel = any(spec.name == "cancel" for spec in specs)
        self._num_places = limits.max_active + limits.max_waiting
        self._pool = ThreadPoolExecutor(self._num_places + 1, thread_name_prefix="forward")  # one is free to cancel
        self._jobs: dict[str, Forwarded] = {}  # by inner id
        self._lock = threading.Lock()
        self._watcher = Watcher(self._look)

    def execute(self, requests: Sequence[Any]) -> None:
        accept_each(requests, self._accept)

    def _accept(self, request: Any, sender: Any) -> None:
        job = Forwarded(request, sender, self._specs)
        with self._lock:
            if job.is_cancel:
                found = [other.inner_id for other in self._jobs.values() if other.client_id == job.client_id]
                if not found:
                    raise NotFound(f"no request with id {shown(job.client_id)} is running", check="cancel")
                self._pool.submit(self._cancel, found, job)
                return
            if len(self._jobs) >= self._num_places:
                raise Unavailable(f"{self._num_places} requests are running or waiting: try again later", check="queue")
            self._jobs[job.inner_id] = job
        self._pool.submit(self._serve, job)

    def _serve(self, job: Forwarded) -> None:
        try:
            last = self._ask(job)
        except Exception as error:
            last = failure(as_known(error))
        with self._lock:
            del self._jobs[job.inner_id]  # first, so that an answered client finds a place for its next request
        job.send(last)

    def _cancel(self, inner_ids: Sequence[str], job: Forwarded | None = None) -> None:
        for inner_id in inner_ids:
            list(call([pb_utils.Tensor("cancel", np.array([True]))], inner_id))  # (1,); NOT_FOUND: it has just ended
        if job is not None:
            job.send(pb_utils.InferenceResponse([]))

    def _look(self) -> None:
        """The watcher calls this: a client that left sends nothing, so the server asks each request."""
        with self._lock:
            jobs = list(self._jobs.values()) if self._can_cancel else []
        self._cancel([job.inner_id for job in jobs if job.is_abandoned()])

    def close(self) -> None:
        self._watcher.end()
        self._pool.shutdown(wait=True)
