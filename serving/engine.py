"""What an engine is: a checked prompt in, a stream of token deltas out.

Engines know nothing of Triton, and Triton's models know nothing of engines but this protocol, so another engine is one
more file. Whoever reads a stream owns the request, and closes the generator to cancel it.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from contract import families
from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.prompt import Prompt
from contract.sampling import Sampling
from contract.tasks import GENERATE

FAILED = "the engine failed on this request, the server's log says why"


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its text alone, its log-probability in nats before penalties and temperature, and the likeliest ones."""

    id: int
    token: str
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class Delta:
    """What a sequence produced since its last delta.

    token_ids may come with an empty text: a character or a stop string may still be incomplete. finish_reason is
    "stop" or "length" on the last delta, else None.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()  # one a token, where sampling asks for them
    queue_seconds: float = 0.0  # on the first delta: how long the request waited for its slot
    pooled: NDArray[np.float32] | None = None  # in the only delta of a task without tokens: (H,) or (1,)


@dataclass(frozen=True)
class Stats:
    """Counts since the engine started; num_active and num_waiting are those of this moment."""

    num_active: int = 0
    num_waiting: int = 0
    num_finished: int = 0
    num_cancelled: int = 0
    num_failed: int = 0
    num_input_tokens: int = 0
    num_output_tokens: int = 0
    kv_bytes: int = 0  # reserved now for keys and values
    max_kv_bytes: int = 0


def check_choice(sampling: Sampling, end_ids: frozenset[int], num_ids: int) -> None:
    """min_tokens keeps the tokens that end an answer from being chosen: some other token must be left.

    Args:
        end_ids: the model's own end tokens, which ignore_eos leaves out.
        num_ids: the size of the vocabulary.

    Raises:
        InvalidInput: every token of the vocabulary ends the answer.
    """
    ends = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else end_ids)
    if sampling.min_tokens and sum(token < num_ids for token in ends) >= num_ids:
        raise InvalidInput(
            f"sampling_parameters.stop_token_ids has all {num_ids} ids of the vocabulary and min_tokens is "
            f"{sampling.min_tokens}: leave one id out, or send min_tokens 0",
            check="no-choice",
        )


def takes_dropped_rows(engine: str, card: ModelCard) -> bool:
    """Whether an engine gives each token the position that it has in the whole prompt. vLLM asks for the positions of
    three axes, and counts those of one axis itself."""
    return engine != "vllm" or families.find(card.family).POSITIONS == "mrope"


def check_kept(prompt: Prompt, card: ModelCard) -> None:
    """Check that vLLM can compute a prompt's positions.

    Raises:
        InvalidInput: rows are dropped, and vLLM numbers the tokens of this family itself.
    """
    if prompt.layout is not None and not prompt.layout.is_kept.all() and not takes_dropped_rows("vllm", card):
        raise InvalidInput(
            f"vision_rows_kept drops rows, but the engine vllm numbers the tokens of {card.family} models one by one: "
            "keep all rows, or ask a server with the engine transformers",
            check="kept-engine",
        )


class Engine(Protocol):
    """Runs many sequences at once, each independent of the others."""

    def generate(self, prompt: Prompt, sampling: Sampling, task: str = GENERATE) -> AsyncGenerator[Delta, None]:
        """Stream one answer; EMBED and SCORE answer with one delta, and no sampling parameter matters. A caller that loaded the engine with an event loop calls this in that loop.

        task: one of those that serving.tasks finds for this engine and checkpoint.

        Closing the generator, or cancelling the task that reads it, frees the slot at the next step.

        Raises (while iterating):
            Unavailable: the queue is full, or the engine is closing.
            DeadlineExceeded: no slot became free within max_queue_seconds.
            InvalidInput: the embeddings do not fit the engine's number format, the request needs more than
                max_kv_bytes, or it asks for something this engine does not have.
            ServerError: the engine failed on this request, or is dead.
        """
        ...

    def stats(self) -> Stats:
        """Counters, safe to read from any thread."""
        ...

    def is_dead(self) -> bool:
        """Whether the engine failed as a whole: every request gets ServerError until it is loaded anew."""
        ...

    def stalled_seconds(self) -> float:
        """Seconds for which requests have run or waited and no step has ended; 0 where there are no requests."""
        ...

    def close(self) -> None:
        """End every running request with Unavailable and stop the engine's threads."""
        ...
