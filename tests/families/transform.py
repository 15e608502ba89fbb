"""A transform of klt in a bundle, learned from a few pictures for an ear that hears all directions alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from contract.codecs import klt
from edge_runtime import Bundle, Encoder, Pipeline
from export.upload.learn import Statistics
from tests.families.models import picture

STEP = 0.05  # of a coefficient's mean size


def add_transform(folder: Path) -> None:
    """Write the transform into a bundle's codec numbers; export.codec learns it with the model's gradients."""
    bundle = Bundle.load(folder)
    numbers, pipeline = bundle.numbers, Pipeline(Encoder.from_bundle(bundle, threads=1))
    assert numbers is not None
    statistics = Statistics(numbers.channel_scales.size)
    for seed in range(6):
        (item,) = pipeline.ask(picture(60 + 30 * seed, 150 - 10 * seed, seed), "What?").items
        statistics.add_rows(klt.flat(item.main, item.deepstack).astype(np.float64))
    statistics.add_gradients(np.eye(numbers.channel_scales.size))
    replace(numbers, transform=statistics.basis().transform(STEP)).write(folder)
    bundle.manifest.write(folder)
