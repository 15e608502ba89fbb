"""200 drawn scenes, found again by the bundled tower's pooled rows: the published share holds."""

import json
from pathlib import Path
from random import Random

import pytest

from benchmarks.retrieval import SIZE, pooled, recall, smaller_jpeg
from edge_runtime import Encoder, Pipeline
from tests.conftest import ROOT
from tiny_model.scenes import shapes_scene


def test_recall_at_1_is_the_published_one(bundle_folder: Path) -> None:
    published = json.loads((ROOT / "benchmarks" / "results" / "retrieval.json").read_text())
    pipeline = Pipeline(Encoder.from_bundle(bundle_folder, threads=1))
    scenes = [shapes_scene(Random(seed), *SIZE, 3).image for seed in range(published["scenes"])]
    assert len(scenes) == 200
    gallery, copies = pooled(pipeline, scenes), pooled(pipeline, [smaller_jpeg(scene) for scene in scenes])
    for level, share in published["recall_at_1"]["smaller_jpeg"].items():
        found = recall(gallery[level], copies[level])
        assert found == pytest.approx(share, abs=0.03), level  # another processor turns a few ties
    assert recall(gallery["main"], copies["main"]) > 100 * published["chance"]
