"""A well-behaved client beside the hostile ones: one stream after another, with a record of tokens and gaps."""

import threading
import time
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2_grpc

from contract.names import MODEL
from tests.hostile.doors import message
from tests.hostile.requests import Hostile, as_tensor

NUM_TOKENS = 60
GIVE_UP_SECONDS = 60


class Neighbour(threading.Thread):
    """Asks the same greedy question until `end`. num_wrong counts answers that are not the first one's tokens.

    Args:
        rest_seconds: how long it rests between two questions.
    """

    def __init__(self, grpc_url: str, values: dict[str, Any], rest_seconds: float = 0) -> None:
        super().__init__(name="neighbour", daemon=True)
        self.num_answers, self.num_wrong, self.errors = 0, 0, list[str]()
        self.gaps_seconds: list[float] = []
        self._request = Hostile(tuple(as_tensor(name, value) for name, value in values.items()))
        self._channel = grpc.insecure_channel(grpc_url)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._is_over, self._rest_seconds = threading.Event(), rest_seconds
        self.expected = self._ask()

    def _ask(self) -> list[int]:
        tokens: list[int] = []
        is_final = False
        latest = time.monotonic()
        answers = self._stub.ModelStreamInfer(iter([message(MODEL, self._request)]), timeout=GIVE_UP_SECONDS)
        for answer in answers:
            if answer.error_message:
                raise RuntimeError(answer.error_message)
            now = time.monotonic()
            self.gaps_seconds.append(now - latest)
            latest, response = now, answer.infer_response
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
                if output.name == "token_ids":
                    tokens += np.frombuffer(raw, np.int64).tolist()
            is_final = response.parameters["triton_final_response"].bool_param
        if not is_final:
            raise RuntimeError("the stream ended without a final response")
        return tokens

    def run(self) -> None:
        while not self._is_over.is_set():
            try:
                tokens = self._ask()
            except (grpc.RpcError, RuntimeError) as error:
                self.errors.append(repr(error)[:300])
                time.sleep(0.1)
                continue
            self.num_answers += 1
            self.num_wrong += tokens != self.expected
            self._is_over.wait(self._rest_seconds)

    def end(self) -> None:
        self._is_over.set()
        self.join(GIVE_UP_SECONDS)
        self._channel.close()

    def take_gaps(self) -> list[float]:
        """The gaps between tokens since the last call, in seconds."""
        taken, self.gaps_seconds = self.gaps_seconds, []
        return taken
