"""Turns vLLM's outputs of one request into deltas, with the other engine's code for text and stop strings.

vLLM's own detokenizer stays off, so that an answer is the same characters whichever engine gives it.
"""

from typing import Any

from tokenizers import Tokenizer

from contract.errors import ServerError, Unavailable
from contract.sampling import Sampling
from serving.engine import FAILED, Delta, TokenLogprob
from serving.requests.text import TextStream


class Answer:
    """Turns the outputs of one request into deltas, in order. end_ids are the tokens that end it."""

    def __init__(self, sampling: Sampling, tokenizer: Tokenizer, end_ids: frozenset[int]) -> None:
        self._sampling, self._tokenizer, self._end_ids = sampling, tokenizer, end_ids
        self._text = TextStream(tokenizer, sampling.stop, sampling.skip_special_tokens)
        self._num_tokens = 0

    def delta(self, token_ids: list[int], logprobs: list[dict[int, Any]] | None, reason: str | None) -> Delta:
        """One of vLLM's chunks, which may hold several tokens. This drops what follows a stop string.

        Raises:
            Unavailable: the engine gave the request up.
            ServerError: the engine failed on it.
        """
        if reason not in (None, "stop", "length"):
            raise (
                Unavailable("the engine gave the request up: try again") if reason == "abort" else ServerError(FAILED)
            )
        text, chosen = "", list[int]()
        for token in token_ids:
            chosen.append(token)
            self._num_tokens += 1
            may_stop = self._num_tokens >= self._sampling.min_tokens
            if token in self._end_ids and may_stop:
                text, reason = text + self._text.flush(), "stop"
                break
            piece, is_stopped = self._text.push(token, may_stop=may_stop)
            text += piece
            if is_stopped:
                reason = "stop"
                break
        else:
            text += self._text.flush() if reason else ""
        return Delta(tuple(chosen), text, reason, tuple(map(self._logprob, chosen, logprobs or ())))

    def _logprob(self, token: int, found: dict[int, Any]) -> TokenLogprob:
        num_top = self._sampling.logprobs or 0
        ranked = sorted(found.items(), key=lambda pair: pair[1].rank)
        top = tuple(self._named(i, value.logprob) for i, value in ranked if value.rank <= num_top)
        return TokenLogprob(token, self._token(token), found[token].logprob, top)

    def _named(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(token, self._token(token), logprob)

    def _token(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special_tokens=False)
