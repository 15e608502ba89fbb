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
        self.is_begun = False  # something was given out, so a failure must be a response, too

    def add(self, deltas: Sequence[Delta], keys: Sequence[str] = (), error: str = "") -> dict[str, NDArray[Any]] | None:
        """Outputs of one response for all of the deltas; None while an unstreamed answer is collected.

        The last delta's finish_reason may be CANCELLED, or ERROR with its message. keys are the items', told once.
        """
        self._held += deltas
        reason = self._held[-1].finish_reason
        if not self._request.is_stream and not reason:
            return None
        held, self._held = self._held, []
        tokens = tuple(token for delta in held for token in delta.token_ids)
        logprobs = tuple(logprob for delta in held for logprob in delta.logprobs)
        whole = Delta(tokens, "".join(delta.text for delta in held), reason, logprobs)
        return self._outputs(whole, () if self.is_begun else keys, error)

    def _outputs(self, delta: Delta, keys: Sequence[str], error: str) -> dict[str, NDArray[Any]]:
        request, reason = self._request, delta.finish_reason or ""
        outputs = {
            "text_output": _bytes(self._echo + delta.text),  # (1,)
            "token_ids": np.array(delta.token_ids, np.int64),  # (tokens,)
        }
        if keys:
            outputs["vision_keys"] = _bytes(*keys)
        self._echo, self.is_begun = "", True
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
