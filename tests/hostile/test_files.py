"""The quick part of the campaign's files: some damage of every kind, and only typed errors."""

from pathlib import Path

from tests.hostile.files import READ, REFUSED, fuzz_in

NUM_CASES = 1_400


def test_damaged_files_and_messages_are_typed_errors(bundle_folder: Path, language_folder: Path) -> None:
    found = fuzz_in(bundle_folder, language_folder, NUM_CASES, derandomize=True)
    assert not found["bad"], "\n".join(found["bad"])
    assert found["cases"] == NUM_CASES
    for kind, outcomes in found["outcomes"].items():
        assert outcomes.get(REFUSED, 0) > 10, kind
    assert sum(outcomes.get(READ, 0) for outcomes in found["outcomes"].values()) > 100
