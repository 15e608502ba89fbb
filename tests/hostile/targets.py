"""What the campaign attacks: a language model, good requests of it, and the device's bundle where there is one."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from contract.sampling import Sampling
from edge_runtime import Encoder, Pipeline
from edge_runtime.encoded_item import Precision
from tests.conftest import ROOT, run_module
from tests.gateway.drawings import drawn
from tests.hostile.layouts import counted
from tests.hostile.neighbour import NUM_TOKENS
from tests.hostile.requests import MAX_TOKENS, Hostile, good
from tests.serving.reference import Case, Reference
from tests.serving.wire import tensors

REFERENCES = ("reference", "hybrid")  # random weights, with every layer of the released models
EXPORTED = ("tiny", "tiny-tiles")  # the bundled checkpoints; a gateway stands before them
PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32", "int8", "int8c", "int4", "ecq")
CALM = {"max_tokens": NUM_TOKENS, "ignore_eos": True}


@dataclass(frozen=True)
class Target:
    """A model that the hostile client meets.

    Attributes:
        language: the folder that the server loads.
        calm: what the neighbour asks, over and over.
        bases: good requests.
        bundle: the device's half for a gateway; None where the tower is not exported.
    """

    language: Path
    calm: dict[str, Any]
    bases: list[Hostile]
    bundle: Path | None = None


def target(model: str, folder: Path) -> Target:
    """The one of a name in REFERENCES or EXPORTED; its files go to the folder."""
    if model in EXPORTED:
        return of_bundle(*exported(ROOT / "models" / model, folder), folder / "ranking")
    reference = Reference(folder, is_hybrid=model == "hybrid")
    return of_reference(reference, reference.cases())


def of_reference(reference: Reference, cases: dict[str, Case]) -> Target:
    bases = [good(tensors(cases[name])) for name in ("text", "one image", "video")]
    bases.append(good({"text_input": "Tell me something."}))
    return Target(reference.language, tensors(cases["text"], sampling=CALM), bases)


def exported(checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """The bundle and the language model of a checkpoint."""
    bundle, language = folder / "bundle", folder / "language"
    run_module("export.vision", checkpoint, bundle)
    run_module("export.language", checkpoint, language, "--bundle", bundle)
    return bundle, language


def of_bundle(bundle: Path, language: Path, ranking: Path) -> Target:
    """A checkpoint's two halves; its language model, copied to `ranking`, gets a reranker's words and serves every task."""
    shutil.copytree(language, ranking)
    tokenizer = Tokenizer.from_file(str(ranking / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in ("yes", "no")])
    tokenizer.save(str(ranking / "tokenizer.json"))
    pipeline = Pipeline(Encoder.from_bundle(bundle, threads=1))
    text = pipeline.request([{"role": "user", "content": "How many shapes are there?"}])
    pictures = [{"type": "image", "image": drawn(seed)[0].image} for seed in (1, 2)]
    asked = [
        pipeline.request([{"role": "user", "content": [*some, {"type": "text", "text": "How many?"}]}])
        for some in (pictures[:1], pictures)
    ]
    made = [one.tensors(Sampling(max_tokens=MAX_TOKENS), form) for one in asked for form in PRECISIONS]
    if pipeline.encoder.bundle.manifest.card.merge_size == 1:  # tiles: numbers of rows in the place of grids
        made += [counted(one) for one in made if "image_grid_thw" in one and "vision_stream" not in one]
    bases = [good(one) for one in (text.tensors(Sampling(), "fp16"), *made, {"text_input": "Tell me something."})]
    return Target(ranking, text.tensors(Sampling.from_dict(CALM), "fp16"), bases, bundle)
