"""Turns deltas into the output tensors of one response, with the extra outputs that the client asked for.

Every response has text and tokens, and the rest on request; a failure after the first response always says so. A
request with stream = false gets the same tensors once, over the whole answer.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.tasks import OUTPUTS
from serving.engine import Delta
from serving.requests.request import ParsedRequest

CANCELLED, ERROR = "cancelled", "error"


class Answer:
    """The responses of one request, in order."""

    def __init__(self, request: ParsedRequest) -> None:
        self._request, self._echo = request, request.echo
        self.is_begun = False  # a response went out, so a failure must be a response, too

    def outputs(self, deltas: Sequence[Delta], keys: Sequence[str] = (), error: str = "") -> dict[str, NDArray[Any]]:
        """Output tensors of one response that holds all of the deltas, by the names of contract.tensors.OUTPUTS.

        Args:
            deltas: one or more. The last one's finish_reason may also be CANCELLED or ERROR.
            keys: the keys of the prompt's items; only the first response has them.
            error: the message of an ERROR.
        """
        request, reason = self._request, deltas[-1].finish_reason or ""
        tokens = [token for delta in deltas for token in delta.token_ids]
        logprobs = [logprob for delta in deltas for logprob in delta.logprobs]
        outputs = {
            "text_output": _bytes(self._echo + "".join(delta.text for delta in deltas)),  # (1,)
            "token_ids": np.array(tokens, np.int64),  # (tokens,)
        }
        if keys and not self.is_begun:
            outputs["vision_keys"] = _bytes(*keys)
        self._echo, self.is_begun = "", True
        if (pooled := deltas[-1].pooled) is not None:
            outputs[OUTPUTS[request.task]] = pooled
        if logprobs:
            outputs["logprobs"] = _bytes(*(json.dumps(asdict(logprob)) for logprob in logprobs))
        if request.wants_finish_reason or reason in (CANCELLED, ERROR):
            outputs["finish_reason"] = _bytes(reason)
        if error:
            outputs["error"] = _bytes(error)
        if request.wants_num_input_tokens:
            outputs["num_input_tokens"] = np.array([request.prompt.input_ids.size], np.uint32)
        if request.wants_num_output_tokens:
            outputs["num_output_tokens"] = np.array([len(tokens)], np.uint32)
        return outputs


def nothing(reason: str) -> dict[str, NDArray[Any]]:
    """Outputs of the only response of a request that ended before it was read."""
    return {"text_output": _bytes(""), "token_ids": np.zeros(0, np.int64), "finish_reason": _bytes(reason)}


def _bytes(*texts: str) -> NDArray[np.object_]:
    return np.array([text.encode("utf-8") for text in texts], dtype=np.object_)  # (texts,)
