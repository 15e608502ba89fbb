"""Any conversation with each tile family: the device's token ids are those of transformers' processor."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.families.models import ALL, KINDS, picture
from tests.families.served import Served, Turn, clip

TEXTS = st.text(max_size=20).filter(lambda text: "<" not in text)  # a mark that somebody typed has a test of its own
SIZES = st.sampled_from([(56, 56), (90, 61), (60, 300), (333, 100), (120, 119)])


@st.composite
def conversations(draw: st.DrawFn, side: int | None) -> list[Turn]:
    """Turns of the user and, between them, of the model.

    Args:
        side: pixels of a video's frames; None where the family takes no videos.
    """
    pictures = SIZES.map(lambda size: picture(*size, seed=sum(size)))
    parts: list[st.SearchStrategy[Any]] = [TEXTS, pictures]
    if side is not None:
        parts.append(st.builds(clip, st.just(side)))
    turns = [draw(st.lists(st.one_of(parts), min_size=1, max_size=4))]
    for _ in range(draw(st.integers(0, 2))):
        turns += [[draw(TEXTS)], draw(st.lists(st.one_of(parts), min_size=1, max_size=4))]
    return turns


@given(data=st.data())
@settings(max_examples=40 if ALL else 10, deadline=None, suppress_health_check=list(HealthCheck))
def test_ids_of_any_conversation(served: Served, data: st.DataObject) -> None:
    kind = KINDS[served.card.family]
    turns = data.draw(conversations(kind.side if kind.video else None))
    assert served.request(turns).input_ids.tolist() == served.processed(turns)["input_ids"][0].tolist()
