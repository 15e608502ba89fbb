"""A judge of answers in bfloat16: transformers' float32 model on the pixels.

Where two tokens of its own are nearly as likely, bfloat16 may choose the other; every token that an engine chooses must
be as good, to the judge, as its best within NEAR_TIE.
"""

from itertools import takewhile

from tests.serving.reference import IMAGE, VIDEO, Case, Reference, forced_logprobs

NEAR_TIE = 0.1  # of logarithms of probabilities


def gap(judge: Reference, case: Case, tokens: tuple[int, ...]) -> float:
    """By how much the judge likes its own choices better, at the token where the difference is largest. transformers
    would look for rows of a pad that a model of random weights may say, so the judge reads up to the first."""
    if tokens == case.expected:
        return 0.0
    tokens = tuple(takewhile(lambda token: token not in (IMAGE, VIDEO), tokens))
    logprobs = forced_logprobs(judge.model, case.prompt(judge.card), judge.card, tokens)
    chosen = logprobs[range(len(tokens)), list(tokens)]
    return float((logprobs.amax(-1) - chosen).max())
