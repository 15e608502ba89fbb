"""export.codec on the bundled model: what it publishes, and that a missed gate leaves the bundle as it was.

A few pictures teach here, which is far too little for the real gate; docs/upload.md has the figures of a full run.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from contract.codecs import klt
from contract.errors import ParityError
from contract.files import sha256
from edge_runtime import Bundle, Encoder, Pipeline
from export.codec import export_codec
from export.language import export_language
from export.upload import codec_export as command
from tests.conftest import CHECKPOINT
from tiny_model.pictures import write_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("klt") / "pictures", 8, 5, num_questions=1)


def sums(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


def test_only_what_passes_is_published(
    bundle_folder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_folder, bundle)
    before = sums(bundle)
    with pytest.raises(ParityError, match=r"answer tokens, 500 are needed"):
        export_codec(str(CHECKPOINT), bundle, pictures)
    monkeypatch.setattr(command, "MIN_TOKENS", 1)
    monkeypatch.setattr(command, "MAX_DIVERGENCE", 0.0)
    with pytest.raises(ParityError, match=r"the bundle is as it was: .* has a divergence of"):
        export_codec(str(CHECKPOINT), bundle, pictures)
    assert sums(bundle) == before
    monkeypatch.setattr(command, "MAX_DIVERGENCE", 1.0)
    monkeypatch.setattr(command, "MAX_CHANGED", 1000.0)
    monkeypatch.setattr(command, "MAX_MARGIN", 100.0)
    result = export_codec(str(CHECKPOINT), bundle, pictures)
    changed = {name for name, digest in sums(bundle).items() if digest != before[name]}
    assert changed == {"codec.npz", "manifest.json"}
    opened = Bundle.load(bundle)
    assert opened.numbers is not None
    assert opened.numbers.names["klt"] == result.codec
    assert opened.numbers.about["klt"]["answer_tokens"] == result.answer_tokens
    assert opened.manifest.card.encoder_fingerprint == Bundle.load(bundle_folder).manifest.card.encoder_fingerprint
    (item,) = (
        Pipeline(Encoder.from_bundle(opened, threads=1))
        .request([{"role": "user", "content": [{"type": "image", "image": str(pictures / "0000.png")}]}])
        .items
    )
    sent = item.wire("klt")
    assert sent[0].nbytes < item.wire("ecq")[0].nbytes
    main, _ = klt.decode(*sent, opened.numbers)
    assert ((main - item.main) ** 2).sum() < 0.9 * (item.main**2).sum()
    assert np.isfinite(main).all()
    export_language(str(CHECKPOINT), tmp_path / "language", bundle=bundle)
    assert sha256(tmp_path / "language" / "codec.npz") == sha256(bundle / "codec.npz")
