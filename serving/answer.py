"""A delta to the output tensors of one response, with the extra outputs a request asked for.

Text and tokens are always sent, the rest on request; a failure after the first token always says so. A request with
stream = false gets the same tensors once, over the whole answer.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.engine import Delta
from serving.request import Request

CANCELLED, ERROR = "cancelled", "error"


class Answer:
    """The responses of one request, in order."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._held: list[Delta] = []
        self._echo = request.echo
        self.keys: Sequence[str] = ()  # of the items, told with the first response
        self.num_output_tokens = 0
        self.is_begun = False  # something was given out, so a failure must be a response, too

    def add(self, delta: Delta) -> dict[str, NDArray[Any]] | None:
        """Outputs to send for a delta; None while an unstreamed answer is collected."""
        self.num_output_tokens += len(delta.token_ids)
        if self._request.is_stream:
            return self._outputs(delta, delta.finish_reason or "")
        self._held.append(delta)
        return self._collected(delta.finish_reason) if delta.finish_reason else None

    def kept(self) -> dict[str, NDArray[Any]]:
        """Outputs of the one response to a request that only has its items kept."""
        return self._outputs(Delta((), ""), "length")

    def end(self, reason: str, error: str = "") -> dict[str, NDArray[Any]]:
        """Outputs of the last response when the engine did not get to one: CANCELLED, or ERROR with its message."""
        return self._collected(reason, error)

    def _collected(self, reason: str, error: str = "") -> dict[str, NDArray[Any]]:
        tokens = tuple(token for delta in self._held for token in delta.token_ids)
        logprobs = tuple(logprob for delta in self._held for logprob in delta.logprobs)
        whole = Delta(tokens, "".join(delta.text for delta in self._held), logprobs=logprobs)
        return self._outputs(whole, reason, error)

    def _outputs(self, delta: Delta, reason: str, error: str = "") -> dict[str, NDArray[Any]]:
        request, self.is_begun = self._request, True
        outputs = {
            "text_output": _bytes(self._echo + delta.text),  # (1,)
            "token_ids": np.array(delta.token_ids, np.int64),  # (tokens,)
        }
        if self.keys:
            outputs["vision_keys"] = _bytes(*self.keys)
        self._echo, self.keys = "", ()
        if delta.logprobs:
            outputs["logprobs"] = _bytes(*(json.dumps(asdict(logprob)) for logprob in delta.logprobs))
        if request.wants_finish_reason or reason in (CANCELLED, ERROR):
            outputs["finish_reason"] = _bytes(reason)
        if error:
            outputs["error"] = _bytes(error)
        if request.wants_num_input_tokens:
            outputs["num_input_tokens"] = np.array([request.prompt.input_ids.size], np.uint32)
        if request.wants_num_output_tokens:
            outputs["num_output_tokens"] = np.array([len(delta.token_ids)], np.uint32)
        return outputs


def _bytes(*texts: str) -> NDArray[np.object_]:
    return np.array([text.encode("utf-8") for text in texts], dtype=np.object_)  # (texts,)
