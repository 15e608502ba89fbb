"""Makes an edge bundle in four steps: check the source, ask the original, write the graph, prove it.

The export writes everything beside `out` and renames it when the proof holds, so it publishes a bundle whole or not at
all.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import ParityError
from contract.files import published
from contract.fingerprint import GRAPH_VERSION
from contract.manifest import CHAT_TEMPLATE, GRAPH, NEWLINE, TOKENIZER, Manifest
from edge_runtime.tower import kernels
from export.checked_source import CheckedCheckpoint, checked_source
from export.gate import codecs, parity
from export.gate.inputs import input_gates
from export.gate.oracle import Batch, Oracle, Outputs
from export.gate.packs import Pack, first_level_packs_for, packs_for
from export.gate.picture import NAME as PICTURE
from export.gate.picture import draw_parity
from export.graph.builder import OPSET
from export.graph.first_level import first_level_graph
from export.graph.loop import write_graph
from export.graph.tower import Tower
from export.integers import balance, calibration
from export.integers.balance import Read
from export.integers.rotation import Rotation
from export.integers.sensitivity import half_layers
from export.plan import HALF
from export.precision import Precision
from export.progress import WRITE_FLOP, Done, Progress
from export.source.checkpoint import HAS_OUTER_VIDEO_WRAPPER, Checkpoint
from export.source.tokenizer import write_tokenizer
from export.static import pictures
from export.static.choice import StaticChoice
from export.static.publication import HEADER, StaticOriginal, Writer

NEWLINE_TENSOR = "image_newline"
LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime")


@dataclass(frozen=True)
class VisionExport:
    """What an export made.

    Attributes:
        bundle: the folder.
        fingerprint: the name of its encoder.
        precision: one of contract.manifest.PRECISIONS.
        nodes: how many nodes the graph has.
        seconds: time of the whole export.
        stages: seconds of each stage.
        parity: the worst figures of the gate, from export.gate.parity.summary.
    """

    bundle: str
    fingerprint: str
    precision: str
    nodes: int
    seconds: float
    stages: dict[str, float]
    parity: dict[str, Any]


@dataclass(frozen=True)
class Original:
    """What transformers' tower answers.

    Attributes:
        packs, answers: the packs of the gate, and the outputs for each.
        largest, first_level_answers: the packs that run as far as the first level, and the outputs for each.
        pictures, picture_rows: the calibration pictures, and the rows float32 (1+L, n, H) of each.
        peaks: by layer the largest magnitude of each input channel on these pictures, float64 (in,).
        static: what it answers at the sizes of the static graphs.
    """

    packs: tuple[Pack, ...]
    answers: list[Outputs]
    largest: tuple[Pack, ...]
    first_level_answers: list[Outputs]
    pictures: list[Batch]
    picture_rows: list[NDArray[np.float32]]
    peaks: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    static: StaticOriginal | None = None


@dataclass(frozen=True)
class Weights:
    """What the export writes: a reader of tensors, factors and half layers as in export.graph.layers.Layers, and
    `facts`, which become the manifest's quantisation."""

    read: Read
    factors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    half: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def write_bundle(
    model: str,
    out: Path,
    precision: Precision,
    progress: Progress,
    calibration_folder: Path | None,
    adapter: Path | None = None,
    static: StaticChoice | None = None,
) -> VisionExport:
    """See export.vision.export_vision."""
    started = time.monotonic()
    if calibration_folder is not None:
        calibration.pictures(calibration_folder)  # a wrong folder ends the export here, not after minutes
    source = checked_source(model, out, precision, progress, adapter, static)
    checkpoint, tower = source.checkpoint, source.tower
    progress.plan(source.plan.costs)
    with progress.stage("checkpoint") as done:
        image, card = checkpoint.image, checkpoint.card
        done(source.plan.costs["checkpoint"], "fingerprint")
    progress.note(f"fingerprint {card.encoder_fingerprint}")
    with published(out) as work:
        with progress.stage("inputs") as done:
            manifest = _inputs(checkpoint, work, precision)
            done(source.plan.costs["inputs"], "processor and prompts")
        num_cases = sum(row["cases"] for row in manifest.gates)
        progress.note(f"inputs      {num_cases} pictures, videos and prompts are as transformers' processor makes them")
        with progress.stage("original") as done:
            original = _ask_original(source, precision, calibration_folder, done)
        weights = Weights(tower.reader(checkpoint.tower_tensor))
        if precision.is_integer:
            weights = _prepared_for_integers(source, original, calibration_folder)
            layers = ", ".join(weights.half)
            progress.note(f"calibration on {calibration_folder or 'drawn pictures'}; in fp16 stay {layers}")
        with progress.stage("graph") as done:
            read, path = _counted(weights.read, done), work / GRAPH
            num_nodes = write_graph(
                source.family, tower, read, image, path, precision.linear, weights.factors, weights.half
            )
        num_bytes = sum(path.stat().st_size for path in work.glob(f"{GRAPH}*"))
        progress.note(f"graph       {num_nodes} nodes, {num_bytes / 1e6:.1f} MB, {precision.name}")
        with progress.stage("parity") as done:
            rows = _prove(work, tower, precision, original, progress, done)
        parity.require(rows, precision.name, precision.gate, out.with_name(out.name + ".parity-failed.json"))
        worst = parity.summary(rows)
        progress.note(f"parity      {worst['rows']} comparisons on {worst['packs']} packs pass")
        draw_parity(rows, precision.name, precision.gate, work / PICTURE)
        _write_codec_numbers(work, original, calibration_folder, progress)
        manifest = replace(manifest, parity=[row.facts() for row in rows], quantisation=weights.facts)
        if source.static is not None and original.static is not None:
            with progress.stage("static"):
                progress.note(HEADER)
                reader, report = tower.reader(checkpoint.tower_tensor), out.with_name(out.name + ".parity-failed.json")
                writer = Writer(source.family, tower, reader, image, source.static, progress.note, report)
                asked = [pictures.grid_pictures(calibration_folder, image, card, grid) for grid in source.static.grids]
                manifest = replace(manifest, static=writer.publish(work, original.static, asked))
        manifest.write(work)
    progress.note(f"published   {out}")
    seconds = round(time.monotonic() - started, 3)
    return VisionExport(str(out), card.encoder_fingerprint, precision.name, num_nodes, seconds, progress.seconds, worst)


def _inputs(checkpoint: Checkpoint, work: Path, precision: Precision) -> Manifest:
    """Write tokenizer and chat template, and compare the device's inputs with transformers'; returns the manifest,
    which has no parity yet."""
    write_tokenizer(checkpoint.folder, work / TOKENIZER)
    if NEWLINE_TENSOR in checkpoint.family.SHARED:
        np.save(work / NEWLINE, checkpoint.tower_tensor(NEWLINE_TENSOR))
    (work / CHAT_TEMPLATE).write_text(checkpoint.chat_template, encoding="utf-8")
    manifest = Manifest(
        card=checkpoint.card,
        image=checkpoint.image,
        video=checkpoint.video,
        has_outer_video_wrapper=HAS_OUTER_VIDEO_WRAPPER,
        precision=precision.name,
        opset=OPSET,
        graph_version=GRAPH_VERSION,
        libraries={name: version(name) for name in LIBRARIES},
        parity=[],
        adapter=checkpoint.adapter_facts,
    )
    return input_gates(checkpoint.folder, work, manifest)


def _oracle(source: CheckedCheckpoint, read: Read) -> Oracle:
    checkpoint = source.checkpoint
    return Oracle(checkpoint.facts, checkpoint.image, list(checkpoint.tower_shapes), read)


def _ask_original(source: CheckedCheckpoint, precision: Precision, folder: Path | None, done: Done) -> Original:
    """Ask the original everything at once; afterwards its memory is free."""
    checkpoint, tower = source.checkpoint, source.tower
    packs, largest = packs_for(tower), first_level_packs_for(tower)
    oracle = _oracle(source, checkpoint.tower_tensor)
    batches = list(calibration.batches(folder, checkpoint.image, checkpoint.card))
    is_balanced = precision.is_integer and tower.fixed_side is None
    peaks = oracle.input_peaks(balance.balanced_layers(tower), batches) if is_balanced else {}
    rows = [np.stack(list(oracle(*picture).values())) for picture in batches]
    answers = parity.answers(tower, oracle, packs, done)
    first_level = parity.first_level_answers(tower, oracle, largest, done)
    static = _ask_about_grids(source, oracle, folder)
    return Original(packs, answers, largest, first_level, batches, rows, peaks, static)


def _ask_about_grids(source: CheckedCheckpoint, oracle: Oracle, folder: Path | None) -> StaticOriginal | None:
    """The original's answers to noise and to the first calibration picture at the size of each static graph."""
    if source.static is None:
        return None
    checkpoint, asked, answers = source.checkpoint, list[list[NDArray[np.uint8]]](), list[list[Outputs]]()
    for grid in source.static.grids:
        picture = pictures.grid_pictures(folder, checkpoint.image, checkpoint.card, grid).calibrating[0]
        asked.append([pictures.noise(source.tower, grid), picture])
        answers.append([oracle(one, np.array([[1, grid.height, grid.width]], np.int64)) for one in asked[-1]])
    return StaticOriginal(asked, answers)


def _prepared_for_integers(source: CheckedCheckpoint, original: Original, folder: Path | None) -> Weights:
    """Rotate and balance the weights, and choose the layers that rounding would cost most. A tower of tiles is only
    rotated, and not even that where a norm before its blocks lets no rotation through."""
    tower, read = source.tower, source.checkpoint.tower_tensor
    described = calibration.describe(folder, original.pictures)
    if tower.fixed_side is not None:
        facts = {"calibration": described, "kept_fp16": list(HALF), "balanced_layers": 0}
        plain = tower.reader(read)
        return Weights(Rotation(tower, plain) if Rotation.fits(tower) else plain, {}, HALF, facts)
    factors = balance.factors(original.peaks, read)
    changed = balance.divided(Rotation(tower, tower.reader(read)), factors)
    prepared = _oracle(source, changed)
    prepared.multiply_inputs(factors)
    half = half_layers(tower, prepared, min(original.pictures, key=lambda batch: len(batch[0])))
    facts = {"calibration": described, "kept_fp16": list(half), "balanced_layers": len(factors)}
    return Weights(changed, factors, half, facts)


def _write_codec_numbers(work: Path, original: Original, folder: Path | None, progress: Progress) -> None:
    """Learn what the upload's codecs need; a codec that misses its gate leaves the bundle without them."""
    about: dict[str, object] = {"calibration": calibration.describe(folder, original.pictures)}
    try:
        numbers = codecs.learned(original.picture_rows, about)
    except ParityError as error:
        progress.note(f"codecs      none: {error}")
        return
    numbers.write(work)
    bits = numbers.about["measured"]["ecq"]["bits_a_value"]
    progress.note(f"codecs      {' '.join(numbers.names.values())}; ecq takes {bits:.2f} bits a value")


def _prove(
    work: Path, tower: Tower, precision: Precision, original: Original, progress: Progress, done: Done
) -> list[parity.Row]:
    """Run the written graph on every pack and compare it with the original's answers. Standard operators compute it.
    The kernels do so only where the precision is about them and this machine has them."""
    use_kernels = precision.proves_kernels and kernels.multiplies_bf16()
    by = f"kernels of {kernels.instructions()}" if use_kernels else "standard operators"
    progress.note(f"parity      of {by} against transformers {version('transformers')}\n{parity.HEADER}")
    rows = parity.measure(
        work / GRAPH, tower, original.answers, original.packs, progress.note, done, use_kernels=use_kernels
    )
    if original.largest:
        cut, expected = first_level_graph(work / GRAPH, tower.num_first_blocks), original.first_level_answers
        rows += parity.measure(
            cut, tower, expected, original.largest, progress.note, done, folder=work, use_kernels=use_kernels
        )
    return rows


def _counted(read: Read, done: Done) -> Read:
    """`read`, which also tells `done` what each tensor costs to write."""

    def reading(name: str) -> NDArray[np.float32]:
        values = read(name)
        done(WRITE_FLOP * values.nbytes, name)
        return values

    return reading
