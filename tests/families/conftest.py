"""Each family exported once a run: bundle, language checkpoint, engine, and the whole model as the judge."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import transformers

from contract.limits import Limits
from edge_runtime import Encoder, Pipeline
from export.language import export_language
from export.vision import export_vision
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.families.models import ALL, KINDS, write
from tests.families.served import Served
from tests.families.transform import add_transform
from tests.processor import load_processor

TESTED = tuple(KINDS) if ALL else ("llava_next", "llava_onevision", "internvl", "smolvlm")


@contextmanager
def served_from(family: str, folder: Path) -> Iterator[Served]:
    """What is served of a family, with all its files in the folder."""
    with served_of(write(family, folder / "model"), folder) as made:
        yield made


@contextmanager
def served_of(model: Path, folder: Path) -> Iterator[Served]:
    """What is served of a checkpoint, with its exports in the folder."""
    export_vision(str(model), folder / "bundle")
    add_transform(folder / "bundle")
    export_language(str(model), folder / "language", bundle=folder / "bundle")
    engine = TransformersEngine(load_language_model(folder / "language", "fp32"), Limits(), 16)
    whole = transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    pipeline = Pipeline(Encoder.from_bundle(folder / "bundle"))
    yield Served(model, folder / "bundle", folder / "language", pipeline, engine, whole, load_processor(model))
    engine.close()


@pytest.fixture(scope="session", params=TESTED)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_from(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture(scope="session")
def server(served: Served) -> Iterator[TritonServer]:
    with TritonServer(settings(served.language, dtype="fp32", bundle=str(served.bundle))) as running:
        yield running
        assert running.poll() is None, running.log_tail()
