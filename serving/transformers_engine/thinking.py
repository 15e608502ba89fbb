"""The budget of thinking tokens of one answer: when it is spent, the closing mark has to come, and the model answers."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from contract.thinking import END, START


class Thinking:
    """Counts the tokens of an answer's thoughts.

    A thought begins behind the opening mark, in the prompt or in the answer, and tokens that the prompt has behind the
    mark count. The rule is vLLM's `thinking_token_budget`.

    Args:
        budget: the most tokens of a thought, without its marks.
        prompt_ids: the prompt's tokens.
    """

    def __init__(self, budget: int, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._budget = budget
        self._start, self._end = (tokenizer.encode(mark, add_special_tokens=False).ids for mark in (START, END))
        self._tail: list[int] = []  # the last tokens, as many as the longer mark has
        self._forced: list[int] = []  # what has to come, the last token first
        self._num_thought: int | None = None  # None outside a thought
        for token in prompt_ids:
            self.accept(token)

    @property
    def forced(self) -> int | None:
        """The token that has to come next; None where the model may choose."""
        if self._num_thought is not None and self._num_thought >= self._budget and not self._forced:
            self._forced = self._end[self._num_begun() :][::-1]
        return self._forced[-1] if self._forced else None

    def accept(self, token: int) -> None:
        """Take note of the next token."""
        if self._forced and token == self._forced[-1]:
            self._forced.pop()
        elif self._num_thought is not None:
            self._num_thought += 1
        self._tail = [*self._tail, token][-max(len(self._start), len(self._end)) :]
        if self._ends_with(self._start):
            self._num_thought = 0
        elif self._ends_with(self._end):
            self._num_thought, self._forced = None, []

    def _num_begun(self) -> int:
        """How many tokens of the closing mark the model has written itself."""
        lengths = range(len(self._end) - 1, 0, -1)
        return next((length for length in lengths if self._ends_with(self._end[:length])), 0)

    def _ends_with(self, mark: list[int]) -> bool:
        return bool(mark) and self._tail[-len(mark) :] == mark
