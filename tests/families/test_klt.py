"""export.codec for families without levels: the model hears rows as it hears pixels, and only what passes is published."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.codecs import klt
from contract.errors import ParityError
from edge_runtime import Bundle
from export.codec import export_codec
from export.upload import codec_export as command
from export.upload.listener import Listener, Question
from tests.families.models import ALL, picture
from tests.families.served import CONVERSATIONS, NUM_TOKENS, Served

SHOWN = CONVERSATIONS["one picture"]


@pytest.fixture(scope="module")
def listener(served: Served) -> Listener:
    return Listener(served.model, served.card)


def question(served: Served) -> Question:
    request = served.request(SHOWN)
    return Question(request.items[0], request.input_ids)


def test_rows_are_heard_as_pixels_are(served: Served, listener: Listener) -> None:
    """And the model feels every row of the picture."""
    asked, expected = question(served), served.expected(SHOWN)
    assert listener.answer(asked, NUM_TOKENS) == expected
    assert listener.log_probabilities(asked, asked.rows, expected).argmax(-1).tolist() == expected
    felt = listener.gradients(asked, expected, torch.Generator().manual_seed(0))
    assert felt.shape == asked.rows[0].shape
    assert (np.linalg.norm(felt, axis=1) > 0).all()


def test_gradients_are_those_of_small_changes(served: Served, listener: Listener) -> None:
    """Of the log-probabilities of the drawn tokens, each with its sign."""
    asked, expected = question(served), served.expected(SHOWN)[:3]
    main, levels = asked.rows
    direction = np.random.default_rng(0).standard_normal(main.shape)
    felt = (listener.gradients(asked, expected, torch.Generator().manual_seed(0)) * direction).sum()
    same = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(listener.log_probabilities(asked, asked.rows, expected).float().exp(), 1, generator=same)
    signs = torch.randint(0, 2, (len(drawn),), generator=same) * 2.0 - 1

    def scored(step: float) -> float:
        found = listener.log_probabilities(asked, (main + step * direction, levels), expected)
        return float((found.gather(1, drawn)[:, 0] * signs).sum())

    assert felt == pytest.approx((scored(1e-3) - scored(-1e-3)) / 2e-3, rel=0.05, abs=0.05)


def test_only_what_passes_is_published(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pictures teach, which is too little for the real bounds."""
    if not ALL and served.card.family != "internvl":
        pytest.skip("make test-families asks every family")
    bundle, pictures = tmp_path / "bundle", tmp_path / "pictures"
    shutil.copytree(served.bundle, bundle)
    pictures.mkdir()
    for number in range(4):
        picture(60 + 40 * number, 90, number).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("What is it?\n")
    before = Bundle.load(bundle).numbers
    monkeypatch.setattr(command, "MAX_TOKENS", 8)
    with pytest.raises(ParityError, match=r"have 8 answer tokens, 500 are needed"):
        export_codec(str(served.model), bundle, pictures)
    monkeypatch.setattr(command, "MIN_TOKENS", 1)
    monkeypatch.setattr(command, "MAX_DIVERGENCE", 0.0)
    with pytest.raises(ParityError, match=r"the bundle is as it was: .* has a divergence of"):
        export_codec(str(served.model), bundle, pictures)
    left = Bundle.load(bundle).numbers
    assert before is not None
    assert left is not None
    assert left.names == before.names
    for name in ("MAX_DIVERGENCE", "MAX_CHANGED", "MAX_MARGIN"):
        monkeypatch.setattr(command, name, 1e9)
    result = export_codec(str(served.model), bundle, pictures)
    learnt = Bundle.load(bundle).numbers
    assert learnt is not None
    assert learnt.names["klt"] == result.codec != before.names["klt"]
    rows = question(served).rows
    stream, scales = klt.encode(*rows, learnt)
    assert [part.shape for part in klt.decode(stream, scales, learnt)] == [part.shape for part in rows]
