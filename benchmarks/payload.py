"""`make payload`: what each codec of the upload costs: bytes, milliseconds, seconds at 5 Mbit/s, loud channels, damage.

Rows of the published sizes are normally distributed, with 1 % of the channels 20 times louder; those of `mid` and
`harsh` come from towers with loud channels (tests/export/outliers.py). Codecs take turns, on one core. Nobody knows the
bytes of klt without a checkpoint's weights (benchmarks/klt.py has the bundled model's); its streams are damaged, too.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from contract.codecs import int8, klt, native
from contract.codecs.codec import CODECS
from contract.codecs.learn import learn
from contract.codecs.numbers import USED, CodecNumbers
from contract.errors import InvalidInput
from edge_runtime.tower import kernels
from export import families
from export.gate import codecs, parity
from export.gate.oracle import Oracle
from export.gate.packs import Pack
from export.source.checkpoint import Checkpoint
from export.upload.learn import Statistics
from tests.contract.streams import CHECKSUM, damaged, sealed
from tests.export.outliers import make_loud
from tests.export.tiny_checkpoint import write_checkpoint

SIZES = {"2B": 2048, "4B": 2560, "8B": 4096, "32B": 5120}  # width of the language model; three deepstack levels
LEVELS, ROWS, LOUD_ONE_OF, LOUD = 4, 256, 100, 20  # a picture of 512 x 512
KLT_STEP = 0.5  # of a coefficient's mean size
MBIT_S, JPEG_BYTES = 5.0, 71_000  # a photograph of 512 x 512 at quality 90
PACKS: tuple[Pack, ...] = (((1, 16, 12),), ((1, 24, 24),), ((1, 30, 16),))
TOWER = {
    "depth": 4, "hidden_size": 256, "intermediate_size": 688, "num_heads": 4,
    "deepstack_visual_indexes": [0, 2, 3], "num_position_embeddings": 576,
}  # fmt: skip

Levels = NDArray[np.float32]  # (1+L, n, H)


def drawn(width: int, seed: int, count: int = ROWS) -> Levels:
    """Normally distributed rows of unlike sizes with loud channels."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((LEVELS, count, width)) * random.uniform(0.5, 2, (LEVELS, count, 1))
    values[..., ::LOUD_ONE_OF] *= LOUD
    return values.astype(np.float32)


def coders(numbers: CodecNumbers) -> dict[str, tuple[Callable[[Levels], Any], Callable[[Any], Any]]]:
    """The functions that encode and that decode, by precision."""
    found: dict[str, tuple[Callable[[Levels], Any], Callable[[Any], Any]]] = {
        "fp16": (
            lambda rows: (rows[0].astype(np.float16), rows[1:].astype(np.float16)),
            lambda sent: tuple(part.astype(np.float32) for part in sent),
        ),
        "int8": (lambda rows: int8.quantise(rows[0], rows[1:]), lambda sent: int8.dequantise(*sent)),
    }
    for name in USED:
        codec = CODECS[name]
        found[name] = (
            lambda rows, codec=codec: codec.encode(rows[0], rows[1:], numbers),  # type: ignore[misc]
            lambda sent, codec=codec: codec.decode(*sent, numbers),  # type: ignore[misc]
        )
    return found


def picture_bytes(width: int) -> dict[str, int]:
    """Bytes of a picture by codec."""
    made, rows = coders(learn(drawn(width, 1, 400))), drawn(width, 2)
    return {name: sum(part.nbytes for part in encode(rows)) for name, (encode, _) in made.items()}


def times(repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of processor time to encode and decode the picture of the 2B, in turns; ecq also in numpy."""
    rows, made = drawn(SIZES["2B"], 2), coders(learn(drawn(SIZES["2B"], 1, 400)))
    ways = [(name, name, kernels.library()) for name in made] + [("ecq in numpy", "ecq", None)]
    seconds: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way, _, _ in ways}
    for turn in range(repeats + 1):
        for way, name, library in ways:
            native.load(library)
            encode, decode = made[name]
            begun = time.process_time()
            sent = encode(rows)
            encoded = time.process_time()
            decode(sent)
            if turn:
                seconds[way][0].append(encoded - begun)
                seconds[way][1].append(time.process_time() - encoded)
    native.load(kernels.library())
    return {
        way: {"encode_ms": round(1e3 * statistics.median(one), 2), "decode_ms": round(1e3 * statistics.median(two), 2)}
        for way, (one, two) in seconds.items()
    }


def loud_towers(folder: Path) -> dict[str, Any]:
    """int8 with and without channel scales on rows of towers with loud channels that calibration has not seen."""
    found = {}
    for kind in ("mid", "harsh"):
        path = write_checkpoint(folder / kind, TOWER)
        make_loud(path, kind)
        source = Checkpoint(path)
        oracle = Oracle(source.config, source.image, list(source.tower_shapes), source.tower_tensor)
        answers = parity.answers(families.tower(source.config), oracle, PACKS)
        first, *others = (np.stack(list(one.values())) for one in answers)  # main, then the levels
        rows, numbers = np.concatenate(others, axis=1), learn(first)
        peaks = np.sqrt((rows.astype(np.float64) ** 2).mean(axis=1))
        loudest = float((peaks.max(axis=1) / np.median(peaks, axis=1)).max())
        main, levels = int8.dequantise(*int8.quantise(rows[0], rows[1:]))
        plain = np.concatenate([main[None], levels])
        error = ((plain - rows) ** 2).sum(axis=1) / np.maximum((rows**2).sum(axis=1), 1e-30)
        found[kind] = {
            "loudest_over_median_channel": round(loudest, 1),
            "channel_error": {"int8": float(np.median(error, axis=1).max())}
            | {name: codecs.measure(name, rows, numbers).channel_error for name in USED},
        }
    return found


def fuzz(count: int) -> dict[str, int]:
    """Damage `count` streams, of ecq and klt in turns. The decoder refuses each as it arrives; with a right checksum,
    none fails in another way or decodes past its size. numpy decodes every second one."""
    rows, learnt, random = drawn(64, 7, 12), drawn(64, 1, 400), Random(8)
    statistics = Statistics(LEVELS * 64)
    statistics.add_rows(klt.flat(learnt[0], learnt[1:]).astype(np.float64))
    statistics.add_gradients(np.eye(LEVELS * 64))  # a model that hears all directions alike
    numbers = replace(learn(learnt), transform=statistics.basis().transform(KLT_STEP))
    streams = {name: CODECS[name].encode(rows[0], rows[1:], numbers) for name in ("ecq", "klt")}
    refused = resealed = passed = past_size = 0
    for number in range(count):
        native.load(kernels.library() if number % 2 else None)
        name = "klt" if number // 2 % 2 else "ecq"
        decode, (stream, steps) = CODECS[name].decode, streams[name]
        broken = damaged(stream.tobytes(), random)
        try:
            decode(np.frombuffer(broken, np.uint8), steps, numbers)
        except InvalidInput:
            refused += 1
        if len(broken) > CHECKSUM:
            resealed += 1
            try:
                main, levels = decode(sealed(broken[CHECKSUM:]), steps, numbers)
                passed += 1  # another value outside the table, say
                past_size += (main.shape, levels.shape) != (rows[0].shape, rows[1:].shape)
            except InvalidInput:
                pass
    native.load(kernels.library())
    return {"damaged": count, "refused": refused, "resealed": resealed, "passed": passed, "past_their_size": past_size}


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes, time and safety of the upload's codecs.")
    parser.add_argument("--streams", type=int, default=20_000, help="damaged streams")
    parser.add_argument("--repeats", type=int, default=15)
    add_out(parser)
    args = parser.parse_args()
    sizes = {name: picture_bytes(width) for name, width in SIZES.items()}
    print(json.dumps(sizes), flush=True)
    milliseconds = times(args.repeats)
    print(json.dumps(milliseconds), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        loud = loud_towers(Path(folder))
    print(json.dumps(loud), flush=True)
    damage = fuzz(args.streams)
    seconds = {
        name: sum(milliseconds[name].values()) / 1e3 + 8e-6 * size / MBIT_S for name, size in sizes["2B"].items()
    }
    result = {
        "benchmark": "payload",
        "machine": machine(),
        "kernels": kernels.instructions(),
        "milliseconds_of_2b": milliseconds,
        "codec_and_upload_s_at_5_mbit": {name: round(value, 3) for name, value in seconds.items()},
        "loud_towers": loud,
        "streams": damage,
        "summary": {
            "bytes_of_512x512": sizes,
            "int8_encode_ms": milliseconds["int8"]["encode_ms"],
            "int8_decode_ms": milliseconds["int8"]["decode_ms"],
            "ecq_mib_of_2b": round(sizes["2B"]["ecq"] / (1 << 20), 3),
            "ecq_times_jpeg": round(sizes["2B"]["ecq"] / JPEG_BYTES, 1),
            "ecq_encode_ms": milliseconds["ecq"]["encode_ms"],
            "ecq_decode_ms": milliseconds["ecq"]["decode_ms"],
            "ecq_seconds_over_int8": round(seconds["ecq"] / seconds["int8"], 3),
            "refused_of_damaged": f"{damage['refused']}/{damage['damaged']}",
            "past_their_size": damage["past_their_size"],
        },
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
