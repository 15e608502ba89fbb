"""The gate of the upload's codecs on answers: divergence, changed tokens and their margins, on the bundled model."""

import numpy as np
import pytest
import torch

from benchmarks.answers import Answers, Rows, encode
from benchmarks.precisions import travelled
from contract.codecs.numbers import USED
from edge_runtime import Bundle, Encoder
from tiny_model.evaluate import held_out_items

PER_KIND = 40  # 4,743 answer tokens, as in the published table: the mean has a long tail
MAX_DIVERGENCE = {"fp16": 1e-8, "int8": 1e-6, "int8c": 1e-6, "int4": 2e-4, "ecq": 2e-4}
MAX_MARGIN = 0.5  # nats: a token whose two best lay closer was no answer to begin with


@pytest.fixture(scope="module")
def rows(bundle: Bundle) -> list[Rows]:
    encoder = Encoder.from_bundle(bundle, threads=1)
    return [encode(encoder, item) for item in held_out_items(PER_KIND)]


@pytest.fixture(scope="module")
def answers(rows: list[Rows]) -> Answers:
    torch.set_num_threads(1)
    return Answers(held_out_items(PER_KIND), rows)


@pytest.mark.parametrize("name", ["fp16", "int8", *USED])
def test_answers_survive(bundle: Bundle, rows: list[Rows], answers: Answers, name: str) -> None:
    assert bundle.numbers is not None
    cost = answers.cost([travelled(name, some, bundle.numbers)[0] for some in rows])
    assert cost.mean_divergence_nats <= MAX_DIVERGENCE[name]
    assert cost.largest_changed_margin_nats <= MAX_MARGIN
    assert cost.changed_per_thousand <= (1 if name in ("int4", "ecq") else 0)


def test_the_gate_can_fail(rows: list[Rows], answers: Answers) -> None:
    """Coarse steps for all rows alike, and the levels lost."""
    cost = answers.cost([(np.rint(main / 8) * 8, np.rint(levels / 8) * 8) for main, levels in rows])
    assert cost.mean_divergence_nats > max(MAX_DIVERGENCE.values())
    cost = answers.cost([(main, np.zeros_like(levels)) for main, levels in rows])
    assert cost.largest_changed_margin_nats > MAX_MARGIN
