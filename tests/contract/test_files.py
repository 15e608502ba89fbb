"""A folder is published whole or not at all, and the earlier one is lost in neither case."""

import os
from pathlib import Path

import pytest

from contract.errors import BundleError, InvalidInput
from contract.files import published, read_regular
from contract.manifest import parse_manifest
from contract.quantisation import read_config
from edge_runtime.clients.connection import Tls
from edge_runtime.reuse.embedding_files import EmbeddingFiles


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """Nobody ever writes to the pipe: who opened it to read would wait for ever. A device would never end."""
    num_open = len(os.listdir("/proc/self/fd"))
    for name in ("manifest.json", "config.json", "a.embeddings", "roots.pem"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read: it is no regular file"):
        parse_manifest(tmp_path)
    with pytest.raises(BundleError, match=r"config\.json cannot be read: .*it is no regular file"):
        read_config(tmp_path)
    with pytest.raises(InvalidInput, match=r"roots\.pem cannot be read: it is no regular file"):
        Tls(tmp_path / "roots.pem").names()
    assert EmbeddingFiles(tmp_path, 1 << 20).get("a") is None
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "none"):
        with pytest.raises(OSError, match=r"no regular file|No such file"):
            read_regular(path)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("text")
    assert read_regular(tmp_path / "link") == b"text"
    assert len(os.listdir("/proc/self/fd")) == num_open


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("at", [1, 2])
def test_the_earlier_folder_survives_a_stop_between_the_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, stop: type[BaseException]
) -> None:
    target, rename, calls = tmp_path / "bundle", os.replace, []

    def stopping(source: Path, to: Path) -> None:
        calls.append(source)
        if len(calls) == at:
            raise stop
        rename(source, to)

    for text in ("earlier", "later"):
        with published(target) as work:
            (work / "file").write_text(text)
    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(stop), published(target) as work:
        (work / "file").write_text("never")
    assert (target / "file").read_text() == "later"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
