"""Streamed text: whole characters only, nothing of a stop string, and joined it is the whole text."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.requests.text import TextStream
from tests.serving.reference import END, START, make_tokenizer

TOKENIZER = make_tokenizer()


def pieces(text: Any, stop: Any = ()) -> Any:
    stream, made = TextStream(TOKENIZER, stop), []
    for token in TOKENIZER.encode(text, add_special_tokens=False).ids:
        piece, is_stopped = stream.push(token)
        made.append(piece)
        if is_stopped:
            return made, True
    return [*made, stream.flush()], False


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_joined_is_whole(text: Any) -> None:
    made, _ = pieces(text)
    assert "".join(made) == text
    assert "\ufffd" not in "".join(made) or "\ufffd" in text


def test_special_tokens_are_shown_where_they_are_asked_for() -> None:
    ids = [*TOKENIZER.encode("a").ids, START, *TOKENIZER.encode("é").ids]
    for skips, expected in ((True, "aé"), (False, "a<|vision_start|>é")):
        stream = TextStream(TOKENIZER, (), skips)
        assert "".join(stream.push(token)[0] for token in ids) + stream.flush() == expected


def test_a_character_comes_whole() -> None:
    assert pieces("a€🙂")[0] == ["a", "", "", "€", "", "", "", "🙂", ""]


def test_an_unfinished_character_is_replaced_at_the_end() -> None:
    stream = TextStream(TOKENIZER)
    for token in TOKENIZER.encode("ok€").ids[:-1]:
        stream.push(token)
    assert stream.flush() == "\ufffd"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two three", ("two",), "one "),
        ("abcabd", ("abd",), "abc"),
        ("aab", ("ab",), "a"),
        ("one two", ("zzz", "two"), "one "),
        ("x€y€", ("€y",), "x"),
        ("unfinished st", ("stop",), None),
    ],
)
def test_stop_strings(text: str, stop: Any, expected: str | None) -> None:
    made, is_stopped = pieces(text, stop)
    assert "".join(made) == (text if expected is None else expected)
    assert is_stopped == (expected is not None)


def test_the_beginning_of_a_stop_string_is_held_back() -> None:
    assert pieces("a--b--c", ("--c",))[0] == ["a", "", "", "--b", "", "", ""]


def test_special_tokens_have_no_text() -> None:
    stream = TextStream(TOKENIZER)
    assert stream.push(END) == ("", False)
    assert stream.flush() == ""
