from pathlib import Path

import pytest
import torch

from tests.export.tiny_checkpoint import TOWER_72, write_checkpoint


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three deepstack levels, bfloat16, one file. Not to be changed by a test."""
    return write_checkpoint(tmp_path_factory.mktemp("three_levels") / "model")


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of `checkpoint` over three files, under the short prefix."""
    return write_checkpoint(tmp_path_factory.mktemp("sharded") / "model", num_shards=3, prefix="visual.")


@pytest.fixture(scope="session")
def no_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """head_dim 72, no deepstack, float32, two files."""
    return write_checkpoint(tmp_path_factory.mktemp("no_levels") / "model", TOWER_72, dtype=torch.float32, num_shards=2)


@pytest.fixture
def few_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests about files: the gate runs on its smallest packs only."""
    from export.gate import packs

    monkeypatch.setattr(packs, "BUDGET_FLOP", 0)
    monkeypatch.setattr(packs, "LARGEST", ((1, 12, 8),))
    monkeypatch.setattr(packs, "SPLIT", ((2, 4, 4),))
    monkeypatch.setattr(packs, "ALWAYS", packs.ALWAYS[:4] + packs.ALWAYS[-1:])
