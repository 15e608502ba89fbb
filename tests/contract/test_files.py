"""A folder is published whole or not at all, and the earlier one is lost in neither case."""

import os
from pathlib import Path

import pytest

from contract.files import published


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
