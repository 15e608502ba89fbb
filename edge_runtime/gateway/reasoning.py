"""This module separates what a model thinks before it answers from the answer, while both arrive.

The marks are those of Qwen's thinking checkpoints: <think> and </think>, which are plain text in their tokenizers. A
template may write the opening mark itself, at the end of the prompt.
"""

from contract.thinking import END, START
from edge_runtime.bundle import Bundle
from edge_runtime.gateway.tool_calls import overlap
from edge_runtime.request import Request

TAIL = 8  # tokens at the end of a prompt that may hold the opening mark


def begins_thinking(request: Request, bundle: Bundle) -> bool | None:
    """Whether the prompt ends with the opening mark; None where the checkpoint's template has neither mark."""
    if START not in bundle.chat_template and END not in bundle.chat_template:
        return None
    tail: str = bundle.tokenizer.decode(request.input_ids[-TAIL:].tolist(), skip_special_tokens=False)
    return tail.rstrip().endswith(START)


class ReasoningParser:
    """Takes an answer's text in pieces.

    Args:
        is_open: whether the prompt ends with the opening mark.

    Attributes:
        is_thinking: whether the text so far ends inside the reasoning.
    """

    def __init__(self, is_open: bool) -> None:
        self.is_thinking = is_open
        self._held, self._is_begun, self._is_over = "", False, False

    def feed(self, text: str, is_last: bool = False) -> tuple[str, str]:
        """The reasoning and the answer's text in a piece; with is_last also what the parser has held back."""
        self._held += text
        if not self._is_begun:
            begun = self._held.lstrip()
            if not is_last and START.startswith(begun):
                return "", ""
            if begun.startswith(START):
                self.is_thinking, begun = True, begun[len(START) :].lstrip()
            if self.is_thinking:
                self._held = begun
                if not begun and not is_last:
                    return "", ""
            self._is_begun = True
        if not self.is_thinking:
            return "", self._answer()
        if (end := self._held.find(END)) >= 0:
            thought, self._held = self._held[:end].rstrip(), self._held[end + len(END) :]
            self.is_thinking, self._is_over = False, True
            return thought, self._answer()
        if is_last:
            thought, self._held = self._held.rstrip(), ""
            return thought, ""
        keep = overlap(self._held, END)
        thought = self._held[: len(self._held) - keep].rstrip()  # white space before the mark is no thought
        self._held = self._held[len(thought) :]
        return thought, ""

    def _answer(self) -> str:
        text, self._held = self._held, ""
        if self._is_over:  # the white space behind the mark is no answer
            text = text.lstrip()
            self._is_over = not text
        return text
