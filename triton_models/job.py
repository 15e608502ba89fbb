"""A request of qwen3_vl that is being answered: Triton's sender, its deadline, and what was sent."""

import math
import time

from contract.errors import DeadlineExceeded
from serving.answer import Answer
from triton_models.replies import FINAL


class Job:
    """A request that is being answered."""

    def __init__(self, request, sender, parsed, timing):
        self.id, self.sender, self.timing = request.request_id(), sender, timing
        self.parsed, self.answer = parsed, Answer(parsed)
        self.timeout_seconds = request.timeout() / 1e6  # 0: none
        self.deadline = time.monotonic() + (self.timeout_seconds or math.inf)
        self.task, self.is_answered = None, False

    def send(self, answer, is_last):
        self.is_answered = is_last
        self.sender.send(answer, flags=FINAL if is_last else 0)

    def is_late(self):
        return time.monotonic() > self.deadline

    def is_abandoned(self):
        if self.is_answered:  # Triton has released the request: asking about it would crash the server
            return False
        return self.sender.is_cancelled() or self.is_late()

    def check_time(self):
        if self.is_late() and not self.answer.num_output_tokens:
            raise DeadlineExceeded(
                f"the timeout of {self.timeout_seconds} s was over before the first token: allow more"
            )
