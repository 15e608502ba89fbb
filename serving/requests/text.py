"""Turns token ids into text as they come: no character comes in two parts, and no part of a stop string comes at all.

A token may hold half a character, and a stop string may span tokens; the stream holds both back until
they are decided.
"""

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """Text of one answer, token by token. The pieces joined are the whole text, cut before the first stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = (), skip_special_tokens: bool = True) -> None:
        self._tokenizer, self._skips = tokenizer, skip_special_tokens
        self._stream = DecodeStream(skip_special_tokens=skip_special_tokens)
        self._stop = stop
        self._token_ids: list[int] = []
        self._num_decoded = 0  # characters the decoder has given out
        self._held = ""

    def push(self, token_id: int, *, may_stop: bool = True) -> tuple[str, bool]:
        """Text that became certain with this token, and whether a stop string ended the answer."""
        self._token_ids.append(token_id)
        piece = self._stream.step(self._tokenizer, token_id) or ""
        self._num_decoded += len(piece)
        self._held += piece
        if not self._stop:
            return self._release(len(self._held)), False
        if may_stop:
            places = [place for place in map(self._held.find, self._stop) if place >= 0]
            if places:
                return self._release(min(places)), True
        return self._release(len(self._held) - self._open_stop()), False

    def flush(self) -> str:
        """The text that is left when no stop string ends the answer; bytes of an unfinished character become U+FFFD."""
        whole = self._tokenizer.decode(self._token_ids, skip_special_tokens=self._skips)
        self._held += whole[self._num_decoded :]
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _open_stop(self) -> int:
        """Length of the longest end of the held text that is the beginning of a stop string."""
        longest = min(max(map(len, self._stop)) - 1, len(self._held))
        for length in range(longest, 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0
