"""Scenes that no training run has drawn, with as many questions of every kind."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Protocol, TypeVar

from tiny_model.questions import SUBJECTS, Question

SEED = 987_654_321  # training draws from Random(small seed)


class Asked(Protocol):
    """A picture or clip with its questions."""

    @property
    def questions(self) -> list[Question]: ...


Drawn = TypeVar("Drawn", bound=Asked)


def held_out(kinds: Sequence[str], per_kind: int, draw: Callable[[Random, str], Drawn], seed: int) -> list[Drawn]:
    """Items until every kind has `per_kind` questions; `draw` makes one of a subject, such as "shapes"."""
    random, items, asked = Random(seed), list[Drawn](), Counter[str]()
    while short := [kind for kind in kinds if asked[kind] < per_kind]:
        subject = next(name for name, of_subject in SUBJECTS.items() if short[0] in of_subject)
        item = draw(random, subject)
        kept = [question for question in item.questions if asked[question.kind] < per_kind]
        asked.update(question.kind for question in kept)
        items.append(replace(item, questions=kept))  # type: ignore[type-var]
    return items
