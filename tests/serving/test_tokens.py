"""Long texts: the pieces' tokens are the text's, the reading ends early, and other threads run meanwhile."""

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from contract.errors import InvalidInput, Unavailable
from serving.requests import tokens
from serving.requests.tokens import TextReader, can_cut
from tests.conftest import CHECKPOINT
from tests.qwen_vocabulary import qwen_tokenizer_json

TINY = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            [" ", "  ", "\n", "\r\n", "\t", "don't", "<|image_pad|>", "it's", "é", "e\u0301", "1 234", "...", "。"]
        ),
        st.text(alphabet="abcXYZ ", max_size=12),
        st.text(max_size=5),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def readers() -> Any:
    """Readers with the tokenizers of the bundled model and of the real vocabulary."""
    found = [TextReader(t, 1 << 20) for t in (TINY, Tokenizer.from_str(qwen_tokenizer_json()))]
    assert all(reader._is_cut for reader in found)
    return found


@settings(max_examples=200, deadline=None)
@given(parts=WORDS)
def test_pieces_are_the_whole(readers: Any, parts: Any) -> None:
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "PIECE_CHARACTERS", 3)
        for reader in readers:
            assert reader.ids(text).tolist() == reader._tokenizer.encode(text, add_special_tokens=False).ids


def test_a_text_without_blanks_is_one_piece() -> None:
    text = "x" * 100_000
    assert TextReader(TINY, 1 << 20).ids(text).tolist() == TINY.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("change", ["no splitter", "a normaliser", "a blank in front"])
def test_other_tokenizers_are_not_cut(change: str) -> None:
    other = Tokenizer.from_str(TINY.to_str())
    if change == "no splitter":
        other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    elif change == "a normaliser":
        other.normalizer = normalizers.Prepend("_")
    else:
        other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    assert can_cut(TINY)
    assert not can_cut(other)
    text = "a b c d e f " * 4000
    assert TextReader(other, 1 << 20).ids(text).tolist() == other.encode(text, add_special_tokens=False).ids


def count_calls(reader: Any) -> Any:
    calls, encode = [], reader._encode
    reader._encode = lambda text: calls.append(len(text)) or encode(text)
    return calls


def test_reading_ends_where_the_text_is_too_long() -> None:
    reader = TextReader(TINY, 1000)
    calls = count_calls(reader)
    with pytest.raises(InvalidInput, match="more than 1000 tokens"):
        reader.ids("some words " * 100_000)
    assert len(calls) == 1


def test_reading_ends_where_nobody_waits() -> None:
    reader = TextReader(TINY, 1 << 20)
    calls = count_calls(reader)
    with pytest.raises(Unavailable, match="client left"):
        reader.ids("some words " * 100_000, lambda: len(calls) < 2)
    assert len(calls) == 2


def test_other_threads_run_meanwhile() -> None:
    """One call for 400,000 letters: a thread that wants to run every 5 ms is served while it lasts."""
    gaps, is_read = [], threading.Event()

    def tick() -> None:
        last = time.monotonic()
        while not is_read.is_set():
            time.sleep(0.005)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    ticking = threading.Thread(target=tick)
    ticking.start()
    begun = time.monotonic()
    TextReader(TINY, 1 << 20).ids("x" * 400_000)
    took = time.monotonic() - begun
    is_read.set()
    ticking.join()
    assert len(gaps) > 3
    assert max(gaps) < took / 2
