"""bench: its figures against what was counted by hand, its report, its table, and the server's part."""

import json
import os
import re
from pathlib import Path

import pytest
from transformers import AutoConfig

from benchmarks.encode import flop
from edge_runtime.__main__ import main
from serving.triton.launcher import TritonServer
from tests.conftest import CHECKPOINT
from tests.edge.verbs import command, told


def test_bench_is_one_json_line(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = told(capsys, "bench", bundle_folder, "--size", 128, "--batch", 2, "--repeats", 2)
    assert report["grid_thw"] == [1, 8, 8]
    assert report["rows_per_s"] == pytest.approx(16 * report["pictures_per_s"], rel=0.01)
    assert report["pictures_per_s"] == pytest.approx(2000 / report["encode_ms"], rel=0.01)
    assert report["first_embedding_ms"] > report["load_ms"] > 0
    assert report["peak_rss_bytes"] > report["weight_bytes"] > 1 << 20
    config = AutoConfig.from_pretrained(CHECKPOINT).vision_config
    second_slice = 2 * 64 * 3 * config.patch_size**2 * config.hidden_size  # the same as the first: not multiplied
    assert report["gigaops_per_picture"] == pytest.approx((flop(config, (1, 8, 8)) - second_slice) / 1e9, abs=0.006)
    assert report["ceiling_fp32_gigaops_per_s"] > 1
    assert report["ceiling_int8_gigaops_per_s"] > 1
    assert 0 < report["share_of_ceiling"] < 2
    assert set(report["instruction_sets"]) & {"sse4_1", "asimd"}
    assert main(command("bench", bundle_folder, "--repeats", "0")) == 2


def test_bench_writes_a_report(tmp_path: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a device's owner sends: the figures, and which processor they are of."""
    report = told(capsys, "bench", bundle_folder, "--size", 64, "--repeats", 1, "--report", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["processor"]
    assert report["cores"] == os.cpu_count()
    assert report["has_matrix_tiles"] in (True, False)
    assert (
        main(command("bench", bundle_folder, "--repeats", "1", "--size", "64", "--report", str(tmp_path / "no" / "x")))
        == 2
    )


def test_bench_ends_in_json_for_people_too(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("bench", bundle_folder, "--size", "64", "--repeats", "1")) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert [row.split(maxsplit=1)[0] for row in table] == list(json.loads(last))


def test_bench_says_what_an_uplink_takes(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = told(capsys, "bench", bundle_folder, "--size", 128, "--repeats", 1, "--uplink", 5)
    rows = {row["codec"]: row for row in report["codecs"]}
    assert rows.keys() == {"fp32", "fp16", "int8", "int8c", "int4", "ecq"}
    values = 16 * 4 * 192
    assert (rows["fp16"]["bytes"], rows["int4"]["bytes"]) == (2 * values, values // 2 + 2 * 4 * 16)
    assert rows["ecq"]["bytes"] < rows["int4"]["bytes"]
    for row in rows.values():
        assert row["upload_s"] == pytest.approx(row["bytes"] * 8 / 5e6, abs=0.001)
        assert row["picture_to_server_s"] > row["codec_and_upload_s"] > 0
    assert report["jpeg_bytes"] > 1000
    assert main(command("bench", bundle_folder, "--size", "64", "--repeats", "1", "--uplink", "5")) == 0
    assert re.search(r"at 5 Mbit/s\n.*\necq +0\.0", capsys.readouterr().out)
    for wrong in ("0", "inf"):
        assert main(command("bench", bundle_folder, "--uplink", wrong)) == 2


def test_bench_compares_answers_one_by_one_and_ahead(
    server: TritonServer, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--size", 96, "--repeats", 1, "--answers", 2, "--triton", server.grpc_url)
    found = told(capsys, "bench", bundle_folder, *flags)["overlap"]
    assert found["answers"] == 2
    for kind in ("pictures_per_s", "wait_ms"):
        assert set(found[kind]) == {"one by one", "ahead"}
        assert min(found[kind].values()) > 0
    assert main(command("bench", bundle_folder, "--answers", "0")) == 2
