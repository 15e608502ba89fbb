"""Learns the codec `klt` for one checkpoint and publishes it in its bundle.

It loads the whole model, asks it about the pictures and takes the gradients of its answers, so it needs memory for a
float32 model. Three of four pictures teach. The others judge: the coarsest step that passes the gate on them goes into
the bundle's codec.npz. Where none passes, the bundle stays as it is. No client takes the codec unless it asks for it or
accepts the quality `least`.
"""

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from contract.codecs import klt
from contract.codecs.numbers import CodecNumbers
from contract.errors import BundleError, FingerprintMismatch, ParityError
from contract.files import published
from edge_runtime import Bundle, Encoder, Pipeline
from export.integers.calibration import pictures_of
from export.progress import Progress
from export.source.checkpoint import Checkpoint
from export.source.hub import local_folder
from export.upload.learn import Basis, Statistics
from export.upload.listener import Listener, Question
from export.upload.questions import held_out, questions

STEPS = (2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.13, 0.09, 0.06, 0.04)  # of a coefficient's mean size
MAX_TOKENS = 32  # of an answer
MIN_TOKENS = 500  # that judge: one changed token is then 2 per thousand
MAX_DIVERGENCE, MAX_CHANGED, MAX_MARGIN = 1e-4, 1.0, 0.5  # nats a token, per thousand, nats


@dataclass(frozen=True)
class Judged:
    """What a step costs on the judging pictures: bytes a row on the wire, divergence in nats a token, changed tokens
    per thousand, the largest margin in nats that a changed token had, and how many coefficients travel."""

    step: float
    bytes_a_row: float
    mean_divergence_nats: float
    changed_per_thousand: float
    largest_changed_margin_nats: float
    coefficients: int

    def missed(self) -> str:
        """What misses the gate, empty when nothing does."""
        for name, found, most in (
            ("divergence", self.mean_divergence_nats, MAX_DIVERGENCE),
            ("changed tokens per thousand", self.changed_per_thousand, MAX_CHANGED),
            ("margin of a changed token", self.largest_changed_margin_nats, MAX_MARGIN),
        ):
            if not found <= most:
                return f"a step of {self.step:g} has a {name} of {found:.2g}, {most:g} is allowed"
        return ""


@dataclass(frozen=True)
class Asked:
    """A question of a judging picture and the model's answer from the tower's rows."""

    question: Question
    answer: list[int]


@dataclass(frozen=True)
class CodecExport:
    """What the command made: the bundle, the published name of the codec, the figures of its gate, how many pictures
    taught and judged, how many answer tokens judged, the JPEG's bytes a row of the judging pictures, and seconds."""

    bundle: str
    codec: str
    judged: Judged
    pictures: int
    judging_pictures: int
    answer_tokens: int
    jpeg_bytes_a_row: float
    seconds: float


def write_codec(model: str, bundle: Path, folder: Path, progress: Progress, seed: int) -> CodecExport:
    """See export.codec.export_codec."""
    started = time.monotonic()
    paths = pictures_of(folder, "--pictures")
    checkpoint = Checkpoint(local_folder(model, lambda _: True))
    opened = Bundle.load(bundle)
    card, numbers = opened.manifest.card, opened.numbers
    if card.encoder_fingerprint != checkpoint.card.encoder_fingerprint:
        raise FingerprintMismatch(card.encoder_fingerprint, checkpoint.card.encoder_fingerprint, "MODEL")
    if numbers is None:
        raise BundleError(f"{bundle} has no codec numbers: export it again")
    pipeline = Pipeline(Encoder.from_bundle(opened), rows="all")
    listener = Listener(checkpoint.folder, card)
    statistics = Statistics(numbers.channel_scales.size)
    generator, asked, jpeg_sizes, num_rows = _generator(seed), list[Asked](), 0, 0
    for path, judges in held_out(paths):
        found, jpeg_size = questions(pipeline, path)
        for number, question in enumerate(found):
            answer = listener.answer(question, MAX_TOKENS)
            if judges:
                asked.append(Asked(question, answer))
                continue
            if number == 0:
                statistics.add_rows(klt.flat(*question.rows).astype(np.float64))
            statistics.add_gradients(listener.gradients(question, answer, generator))
        if judges and found:
            jpeg_sizes, num_rows = jpeg_sizes + jpeg_size, num_rows + len(found[0].rows[0])
        progress.note(f"asked       {path.name}: {len(found)} questions")
    num_tokens = sum(len(one.answer) for one in asked)
    if num_tokens < MIN_TOKENS:
        raise ParityError(
            f"the judging pictures, one of four, have {num_tokens} answer tokens, {MIN_TOKENS} are needed to judge: "
            "give more pictures or more questions"
        )
    judged, learnt = _coarsest(statistics.basis(), numbers, listener, asked, progress)
    about = numbers.about | {
        "klt": asdict(judged) | {"pictures": len(paths), "answer_tokens": num_tokens, "jpeg_bytes": jpeg_sizes}
    }
    _publish(bundle, opened, replace(learnt, about=about))
    progress.note(f"published   {bundle}: {learnt.names['klt']}, {judged.bytes_a_row:.1f} bytes a row")
    return CodecExport(
        str(bundle),
        learnt.names["klt"],
        judged,
        len(paths),
        sum(judges for _, judges in held_out(paths)),
        num_tokens,
        round(jpeg_sizes / num_rows, 1),
        round(time.monotonic() - started, 1),
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _coarsest(
    basis: Basis, numbers: CodecNumbers, listener: Listener, asked: list[Asked], progress: Progress
) -> tuple[Judged, CodecNumbers]:
    """The coarsest step that passes, and the numbers with its transform. A finer step costs less, so half of the steps
    that are left need no trial.

    Raises:
        ParityError: none passes.
    """
    expected = [listener.log_probabilities(one.question, one.question.rows, one.answer) for one in asked]
    low, high = 0, len(STEPS)  # the answer lies in STEPS[low:high], or nowhere
    best: tuple[Judged, CodecNumbers] | None = None
    missed = ""
    while low < high:
        middle = (low + high) // 2
        learnt = replace(numbers, transform=basis.transform(STEPS[middle]))
        judged = _judge(STEPS[middle], learnt, listener, asked, expected)
        progress.note(f"step {STEPS[middle]:<6g} {json.dumps(asdict(judged))}")
        if why := judged.missed():
            low, missed = middle + 1, why
        else:
            high, best = middle, (judged, learnt)
    if best is None:
        raise ParityError(f"klt is not published, and the bundle is as it was: {missed}")
    return best


def _judge(
    step: float, numbers: CodecNumbers, listener: Listener, asked: list[Asked], expected: list[torch.Tensor]
) -> Judged:
    divergence, margins, num_tokens, num_bytes, num_rows = 0.0, list[float](), 0, 0, 0
    for one, before in zip(asked, expected, strict=True):
        sent = klt.encode(*one.question.rows, numbers)
        num_bytes, num_rows = num_bytes + sent[0].nbytes, num_rows + len(one.question.rows[0])
        after = listener.log_probabilities(one.question, klt.decode(*sent, numbers), one.answer)
        divergence += float((before.exp() * (before - after)).sum())
        best = before.topk(2, -1)
        is_changed = best.indices[:, 0] != after.argmax(-1)
        margins += (best.values[:, 0] - best.values[:, 1])[is_changed].tolist()
        num_tokens += len(before)
    transform = numbers.needed_transform
    return Judged(
        step,
        round(num_bytes / num_rows, 2),
        float(f"{max(divergence, 0) / num_tokens:.3g}"),
        round(1000 * len(margins) / num_tokens, 2),
        round(max(margins, default=0.0), 3),
        len(transform.klt_synthesis),
    )


def _publish(bundle: Path, opened: Bundle, numbers: CodecNumbers) -> None:
    """Put the bundle with the new numbers in the place of the old one."""
    with published(bundle) as work:
        for name in opened.manifest.files:
            shutil.copyfile(bundle / name, work / name)
        numbers.write(work)
        opened.manifest.write(work)
