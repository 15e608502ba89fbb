"""Token ids of a text, while the other threads of the process go on.

The tokenizers library holds Python's lock through all of `encode`, 1 s a million characters: no answer of a gateway
streams meanwhile. `encode_batch_fast` leaves the lock to others and computes the same ids in half of the time, but it
starts threads of its own, so short texts do without it.
"""

from tokenizers import Tokenizer

SHORT_CHARACTERS = 1 << 12  # 4 ms


def token_ids(tokenizer: Tokenizer, text: str, add_special_tokens: bool = True) -> list[int]:
    """The ids that `encode` gives."""
    if len(text) <= SHORT_CHARACTERS:
        found = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    else:
        (found,) = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    ids: list[int] = found.ids
    return ids
