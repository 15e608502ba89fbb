"""The edge benchmark on a tiny tower: real workers, what they find, and what is made of it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.edge import engines, preparation, weights
from benchmarks.edge.driver import Worker, cosines, measure
from benchmarks.edge.engines import ENGINES, REFERENCE, pixel_values
from benchmarks.edge.llama.engine import frames_of
from benchmarks.edge.summary import summary
from benchmarks.edge.table import table
from edge_runtime.items.patches import to_patches
from tests.export.tiny_checkpoint import TOWER, write_checkpoint

DEPTH = TOWER["depth"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edge")
    write_checkpoint(weights.checkpoint(folder, DEPTH))
    return folder


@pytest.fixture(scope="module")
def workers(cache: Path) -> Iterator[dict[str, Worker]]:
    made = {name: Worker(name, cache, DEPTH, 1) for name in (REFERENCE, "ours fp32")}
    yield made
    for worker in made.values():
        worker.close()


def test_ours_is_held_against_transformers(workers: dict[str, Worker]) -> None:
    rows = measure(workers, ["256", "video"], 1, 0)
    assert list(rows) == [REFERENCE, "ours fp32"]
    for size in ("256", "video"):
        assert rows["ours fp32"][size]["cosine"]["lowest"] > 0.99999
        assert len(rows["ours fp32"][size]["cosine"]["levels"]) == 1 + len(TOWER["deepstack_visual_indexes"])
        for row in rows.values():
            assert row[size]["num_runs"] == 1
            assert min(row[size]["wall_ms"], row[size]["cpu_ms"], row[size]["peak_mib"]) > 0
    assert {"load_s", "file_mb", "rss_mib"} == set(workers["ours fp32"].about)


def test_cosines_are_told_level_by_level(tmp_path: Path) -> None:
    expected, found = np.eye(3, 4)[None].repeat(2, 0), np.eye(3, 4)[None].repeat(2, 0)
    found[1, 2] = [0, 0, 3, 4]  # one row of level 1: cosine .6
    for name, rows in (("expected", expected), ("found", found)):
        np.save(tmp_path / f"{name}.npy", rows.astype(np.float32))
    accuracy = cosines(tmp_path / "expected.npy", tmp_path / "found.npy")
    assert accuracy["levels"] == [
        {"mean": 1.0, "lowest": 1.0},
        {"mean": pytest.approx(2.6 / 3, abs=1e-6), "lowest": 0.6},
    ]
    assert (accuracy["mean"], accuracy["lowest"]) == (accuracy["levels"][1]["mean"], 0.6)


def test_an_engine_that_fails_is_a_row_that_says_why(workers: dict[str, Worker], cache: Path) -> None:
    absent = Worker("ours fp32", cache, DEPTH + 1, 1)
    assert "error" in absent.about
    assert "exit code" in absent.about["error"]
    dying = Worker("ours fp32", cache, DEPTH, 1)
    assert "error" not in dying.about
    dying.close()
    rows = measure({REFERENCE: workers[REFERENCE], "absent": absent, "dying": dying}, ["256"], 1, 0)
    assert "wall_ms" in rows[REFERENCE]["256"]
    assert "error" in rows["absent"]["256"]
    assert rows["dying"]["256"]["error"].endswith("(exit code -9)")


def test_a_worker_holds_no_torch_but_for_torch() -> None:
    """Otherwise its memory and its load would be ours and llama.cpp's, too."""
    modules = "benchmarks.edge.worker, benchmarks.edge.ours_engine, benchmarks.edge.llama.engine"
    code = f"import sys, {modules}; print({{'torch', 'transformers', 'onnx'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_llama_gets_the_pixels_that_everybody_gets(cache: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), np.uint8)
    patches, grid = to_patches(frames)
    values = frames_of(pixel_values(patches), grid, weights.tower(cache, DEPTH))
    np.testing.assert_allclose(127.5 * (values + 1), frames, atol=1e-3)


def test_preparing_a_picture_is_told_as_a_share_of_encoding(workers: dict[str, Worker], cache: Path) -> None:
    rows = preparation.measure(weights.bundle_folder(cache, DEPTH, "fp32"), 100.0)
    assert [row["side"] for row in rows] == [512, 1024]
    for row in rows:
        assert row["ms"] > 0
        assert row["share"] == pytest.approx(row["ms"] / 100, abs=2e-4)


def cell(wall_ms: float, mean: float) -> dict[str, Any]:
    levels = [{"mean": mean, "lowest": mean - 0.001}] * 2
    accuracy = {"levels": levels, "mean": mean, "lowest": mean - 0.001}
    return {"wall_ms": wall_ms, "cpu_ms": 2 * wall_ms, "peak_mib": 7, "num_runs": 2, "cosine": accuracy}


ROWS = {
    "transformers fp32": {"512": cell(900, 1.0), "1024": cell(4000, 1.0)},
    "OpenVINO int8": {"512": cell(300, 0.998), "1024": cell(1000, 0.998)},
    "OpenVINO bf16": {"512": cell(600, 0.9991), "1024": {"error": "no memory (exit code -9)"}},
    "ours fp16": {"512": cell(500, 1.0), "1024": cell(2500, 1.0)},
    "ours int8": {"512": cell(400, 0.9994), "1024": cell(2000, 0.9992)},
}


def test_the_summary_takes_the_fastest_equal_peer() -> None:
    found = summary(ROWS)
    assert found["best_peer_512"] == "OpenVINO bf16"  # its int8 is faster and not equal, our fp16 is no peer
    assert found["int8_vs_best_peer_512"] == 1.5
    assert found["int8_vs_openvino_int8_512"] == 0.75
    assert found["best_peer_1024"] == "transformers fp32"  # the other one failed
    assert found["int8_vs_best_peer_1024"] == 2.0
    assert found["int8_cosine_outliers"] == {"mean": 0.9992, "lowest": pytest.approx(0.9982)}


def test_float32_is_held_against_openvinos() -> None:
    found = summary({"OpenVINO fp32": {"512": cell(900, 1.0)}, "ours fp32": {"512": cell(750, 1.0)}})
    assert found == {"fp32_vs_openvino_fp32_512": 1.2}


@pytest.mark.parametrize(("sets", "has_bf16"), [(["avx2", "avx512f"], False), (["avx512f", "avx512_bf16"], True)])
def test_nobody_waits_for_numbers_that_are_imitated(
    sets: list[str], has_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "instruction_sets", lambda: sets)
    assert ("OpenVINO bf16" in engines.native_engines()) is has_bf16
    assert "OpenVINO fp32" in engines.native_engines()


def test_without_an_equal_peer_there_is_no_ratio_to_it() -> None:
    found = summary({name: ROWS[name] for name in ("OpenVINO int8", "ours int8")})
    assert "int8_vs_best_peer_512" not in found
    assert found["int8_vs_openvino_int8_512"] == 0.75


def test_the_table_tells_every_engine_and_every_error() -> None:
    taken = {"file_mb": 10.5, "load_s": 0.25, "rss_mib": 90}
    engines: dict[str, Any] = {n: taken | {"settings": ENGINES[n].settings, "sizes": row} for n, row in ROWS.items()}
    engines["llama.cpp f16"] = {"settings": ENGINES["llama.cpp f16"].settings, "error": "not built", "sizes": {}}
    text = table(
        {
            "machine": "a machine",
            "threads": 2,
            "depth": 24,
            "tflop": {"512": 0.1, "1024": 0.5},
            "peaks_gflops": {"fp32": 100.0},
            "engines": engines,
            "preparation": [{"side": 512, "kb": 52.0, "ms": 8.0, "share": 0.02}],
            "in_flight": {
                "engine": "ours int8",
                "size": "512",
                "one_process_per_s": 2.5,
                "process_per_core_per_s": 2.7,
            },
        }
    )
    assert "| ours int8 | 400 (800) | 2000 (4000) |" in text
    assert "| OpenVINO bf16 | 600 (1200) | error |" in text
    assert "- OpenVINO bf16, 1024: no memory (exit code -9)" in text
    assert "- llama.cpp f16: not built" in text
    assert "| ours int8 | 0.999400 | 0.999400 | 0.998400 |" in text
    assert all(ENGINES[name].settings in text for name in ROWS)
    assert "8.0 ms on one core, 2.0 % of encoding it in int8" in text
    assert "2.5 one after the other on all cores, 2.7 with a process on each" in text
