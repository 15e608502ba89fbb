"""Pictures in, their embeddings out, for clients that cannot encode; on request edge_vlm keeps them and keys come back.

This file has Triton's side only: triton_models.served_encoder does the work, in two threads (one decodes a picture
while the other encodes). execute returns at once, so that a refusal, and the sign of life that the guardian asks for,
never wait for a tower.
"""

import locale
import uuid
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from contract.errors import InvalidInput, Unavailable, shown
from contract.tensors import VISION_INPUTS, VISION_OUTPUTS
from serving.settings import Settings
from triton_models.asked import Asked
from triton_models.bls import answer
from triton_models.door import Watcher, accept_each, as_known, parameters
from triton_models.replies import failure, outputs
from triton_models.served_encoder import ServedEncoder, Tensors

NUM_THREADS = 2
UPLOADED = (
    "vision_embeddings",
    "deepstack_embeddings",
    "image_grid_thw",
    "video_grid_thw",
    "video_second_per_grid",
    "encoder_fingerprint",
)


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # as in edge_vlm
        settings = Settings.read(Path(args["model_repository"]) / args["model_version"])
        assert settings.bundle is not None  # this model is rendered with --bundle only
        self.limits = settings.limits
        self.encoder = ServedEncoder(settings.bundle, settings.limits, settings.num_threads)
        self.pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="tower")
        self.jobs: dict[Future[None], Asked] = {}
        self.is_closing = False
        self.watcher = Watcher(self.look)

    def execute(self, requests: Sequence[Any]) -> None:
        accept_each(requests, self.accept)

    def accept(self, request: Any, sender: Any) -> None:
        fields, _ = parameters(request)
        if unknown := sorted(fields):
            names = ", ".join(spec.name for spec in VISION_INPUTS)
            raise InvalidInput(f"{shown(unknown[0])} is no input, known are {names}: leave it out", check="parameter")
        named = ((spec.name, pb_utils.get_input_tensor_by_name(request, spec.name)) for spec in VISION_INPUTS)
        tensors = {name: tensor.as_numpy() for name, tensor in named if tensor is not None}
        self.encoder.check(tensors)
        self.jobs = {job: asked for job, asked in self.jobs.items() if not job.done()}
        if len(self.jobs) >= NUM_THREADS + self.limits.max_waiting:
            raise Unavailable(f"{len(self.jobs)} requests are running or waiting: try again later", check="queue")
        wanted = set(request.requested_output_names()) or {spec.name for spec in VISION_OUTPUTS}
        asked = Asked(sender)
        self.jobs = self.jobs | {self.pool.submit(self.serve, tensors, wanted, asked): asked}  # `look` may read the old

    def look(self) -> None:
        """The watcher calls this: the decoding of a caller that has left ends."""
        for asked in self.jobs.values():
            if not asked.has_left:
                asked.look()

    def serve(self, tensors: Tensors, wanted: Collection[str], asked: Asked) -> None:
        try:
            if self.is_closing:
                raise Unavailable("the server is stopping: try again later")
            asked.look()
            reply = outputs({}) if asked.has_left else self.reply(tensors, wanted, asked)
        except Exception as error:
            reply = failure(as_known(error))
        asked.answer(reply)

    def reply(self, tensors: Tensors, wanted: Collection[str], asked: Asked) -> Any:
        found = self.encoder.encode(tensors, asked)
        if "vision_keys" in wanted:
            named = {name: tensors[name] for name in ("video_second_per_grid",) if name in tensors}
            found["vision_keys"] = self.keep(found | named)
        return outputs({name: array for name, array in found.items() if name in wanted})

    def keep(self, found: Tensors) -> NDArray[np.object_]:
        """The keys under which edge_vlm now holds the items, (k,); empty ones where the server keeps nothing."""
        if not self.limits.max_reuse_bytes:
            num_items = sum(len(found.get(name, ())) for name in ("image_grid_thw", "video_grid_thw"))
            return np.array([b""] * num_items, np.object_)
        inputs = [pb_utils.Tensor(name, found[name]) for name in UPLOADED if name in found and found[name].size]
        inputs.append(pb_utils.Tensor("sampling_parameters", np.array([b'{"max_tokens": 0}'], np.object_)))
        inputs.append(pb_utils.Tensor("stream", np.array([False])))
        answered: Tensors = {tensor.name(): tensor.as_numpy() for tensor in answer(inputs, uuid.uuid4().hex)}
        return answered["vision_keys"]

    def finalize(self) -> None:
        self.watcher.end()
        self.is_closing = True  # requests in the queue get an error
        self.pool.shutdown(wait=True)
        self.encoder.close()
