"""What a person sees: sizes before anything is read, how far it is, and a refusal instead of half a bundle."""

import io
import json
import math
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.random_checkpoint import LANGUAGE, SHAPES
from contract.errors import BundleError, InvalidInput
from contract.manifest import PRECISIONS
from export import families, language, progress, vision
from export.families import local_name as tower_name
from export.gate import packs
from export.graph.loop import GROUP_PATCHES, write_graph
from export.plan import HALF, Plan
from export.precision import BY_NAME
from export.progress import Progress
from export.source.checkpoint import Checkpoint
from export.source.shards import read_shard
from tests.conftest import ROOT
from tests.export.test_precisions import TOWER
from tests.export.tiny_checkpoint import write_checkpoint, write_json

Usage = tuple[int, str, int]  # exit code, standard error, peak resident bytes


COMMAND = """
import sys
from export import {name}
from export.gate import packs
packs.ALWAYS, packs.BUDGET_FLOP = packs.ALWAYS[:4], 0
packs.SPLIT, packs.LARGEST = ((2, 4, 4),), ((1, 12, 8),)
code = {name}.main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


def run(name: str, *arguments: str, max_file_bytes: int | None = None) -> Usage:
    """export.vision or export.language in a process of its own, where no file may grow beyond a limit; few packs."""

    def limit() -> None:
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", COMMAND.format(name=name), *arguments], preexec_fn=limit, **pipes)
    out, err = child.communicate()
    return child.returncode, err, int(out.splitlines()[-1]) * 1024


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_leaves_nothing(checkpoint: Path, tmp_path: Path, number: signal.Signals) -> None:
    # a library whose import is interrupted may say so in its own way
    run = "import sys, onnxruntime; from export import vision; sys.exit(vision.main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", run, checkpoint, tmp_path / "edge"]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not any(tmp_path.glob(".edge.*/vision.onnx.data")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert error.splitlines()[-1] == "stopped. Nothing was published"
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [vision, language])
def test_help_fits_one_screen(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        command.main(["--help"])  # type: ignore[attr-defined]
    assert done.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


def test_a_dry_run_writes_nothing(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vision.main([str(checkpoint), str(tmp_path / "edge"), "--dry-run", "--json"]) == 0
    printed = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    for word in ("parameters", "on disk", "at the peak", "packs"):
        assert word in printed
    plan = json.loads(printed.splitlines()[-1])
    assert plan["tower_fp32_bytes"] == 4 * plan["parameters"]
    shapes = Checkpoint(checkpoint).tower_shapes.values()
    assert plan["parameters"] == sum(math.prod(shape) for _, shape in shapes)


def test_a_dry_run_needs_no_weights_but_the_headers(sharded: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(sharded, tmp_path / "model"))
    (model / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(BundleError, match=r"model-00002-of-00003\.safetensors is missing"):
        vision.plan_vision(str(model), tmp_path / "edge")


def test_planned_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    source = Checkpoint(write_checkpoint(tmp_path / "model", TOWER))
    tower = families.tower(source.config)
    for precision in PRECISIONS:
        write_graph(
            families.find(source.config["model_type"]),
            tower,
            source.tower_tensor,
            source.image,
            tmp_path / "vision.onnx",
            BY_NAME[precision].linear,
            half=HALF,
        )
        size = (tmp_path / "vision.onnx.data").stat().st_size
        assert Plan.of(tower, BY_NAME[precision]).bundle_bytes == pytest.approx(size, rel=0.08)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
@pytest.mark.parametrize("size", SHAPES)
def test_what_a_published_tower_is_proven_on(size: str, family: str) -> None:
    shape = SHAPES[size] if family == "qwen3_vl" else SHAPES[size] | {"deepstack_visual_indexes": []}
    tower = families.tower({"model_type": family, "vision_config": shape})
    whole, first_level = packs.packs_for(tower), packs.first_level_packs_for(tower)
    assert len(whole) >= 20
    grids = [grid for pack in whole for grid in pack]
    assert (1, 2, 2) in grids
    assert {t for t, _, _ in grids} == set(range(1, 9))
    assert any(min(h, w) * 5 < max(h, w) for _, h, w in grids)
    assert {max(h, w) > 48 for _, h, w in grids} == {True, False}
    assert any(len({pack[0][0], pack[-1][0]}) > 1 for pack in whole)  # a video beside a picture
    assert ((1, 96, 64),) in first_level
    assert any(grids[0][0] > 1 and math.prod(grids[0]) > GROUP_PATCHES for grids in whole + first_level)


def test_a_tower_of_one_size_is_proven_on_numbers_of_tiles() -> None:
    """A small tower on every pack; of a deep one, whose tile costs as much as a large pack, on fewer."""
    small = families.tower(Checkpoint(ROOT / "models" / "tiny-tiles").config)
    deep = replace(small, hidden_size=1024, intermediate_size=4096, depth=120)
    on_small, on_deep = ([tuple(t for t, _, _ in pack) for pack in packs.packs_for(tower)] for tower in (small, deep))
    assert on_small == [*packs.TILES, *packs.MORE_TILES]
    assert on_deep[: len(packs.TILES)] == list(packs.TILES)
    assert len(on_deep) < len(on_small)


def test_a_disk_without_room_is_refused_before_it_starts(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InvalidInput, match=r"its disk has 0 MB free: the bundle needs 2 MB"):
        vision.export_vision(str(checkpoint), tmp_path / "edge")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["vision", "language"])
def test_a_disk_that_fills_up_leaves_nothing(checkpoint: Path, tmp_path: Path, command: str) -> None:
    code, err, _ = run(command, str(checkpoint), str(tmp_path / "out"), max_file_bytes=50_000)
    assert code == 2
    assert err.startswith("error: ")
    assert err.endswith("File too large. Nothing was published\n")
    assert list(tmp_path.iterdir()) == []


def with_a_hole(model: Path, num_bytes: int) -> None:
    """Put a language tensor of zeros behind the one file of a checkpoint, as a hole on disk."""
    path = model / "model.safetensors"
    tensors, metadata = read_shard(path)
    start = min(tensor.offset for tensor in tensors.values())
    data, end = path.read_bytes()[start:], sum(tensor.num_bytes for tensor in tensors.values())
    header: dict[str, object] = {"__metadata__": metadata}
    for name, tensor in tensors.items():
        first = tensor.offset - start
        place = [first, first + tensor.num_bytes]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": place}
    header[f"{LANGUAGE}.more"] = {"dtype": "U8", "shape": [num_bytes], "data_offsets": [end, end + num_bytes]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)
        file.truncate(8 + len(text) + end + num_bytes)


def test_nothing_of_the_language_model_is_read(checkpoint: Path, tmp_path: Path) -> None:
    """A language model of 200 GB in the tower's own file costs no memory and no time."""
    large = Path(shutil.copytree(checkpoint, tmp_path / "large"))
    with_a_hole(large, 200_000_000_000)
    assert Checkpoint(large).fingerprint == Checkpoint(checkpoint).fingerprint
    peaks = []
    for model in (checkpoint, large):
        code, err, peak = run("vision", str(model), str(tmp_path / f"edge_{model.name}"))
        assert code == 0, err
        peaks.append(peak)
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.usefixtures("few_packs")
@pytest.mark.parametrize("content", [b"", b"not a tensor", None])
def test_files_of_the_language_model_are_not_opened(checkpoint: Path, tmp_path: Path, content: bytes | None) -> None:
    model = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    tower, rest = "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"
    places = {name: rest if tower_name(name) is None else tower for name in weights}
    write_json(model / "model.safetensors.index.json", {"weight_map": places})
    save_file({n: t for n, t in weights.items() if places[n] == tower}, model / tower, {"format": "pt"})
    (model / "model.safetensors").unlink()
    if content is not None:
        (model / rest).write_bytes(content)
    result = vision.export_vision(str(model), tmp_path / "edge")
    assert result.fingerprint == Checkpoint(checkpoint).fingerprint
    with pytest.raises(BundleError, match=rest):
        language.export_language(str(model), tmp_path / "language")
    assert not (tmp_path / "language").exists()


def test_the_language_export_holds_one_block(checkpoint: Path, tmp_path: Path) -> None:
    """Beside what transformers takes, whose tokenizer the export writes."""
    model, peaks = Path(shutil.copytree(checkpoint, tmp_path / "model")), []
    for target in ("small", "large"):
        if target == "large":
            with_a_hole(model, 400_000_000)
        code, err, peak = run("language", str(model), str(tmp_path / target))
        assert code == 0, err
        peaks.append(peak)
    assert (tmp_path / "large" / "model.safetensors").stat().st_size > 400_000_000
    assert peaks[1] - peaks[0] < 100_000_000, peaks


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_bar_shows_what_is_done_and_foretells_nothing(clock: list[float]) -> None:
    bar = Progress(screen := Terminal())
    bar.plan({"original": 10, "parity": 30})
    with bar.stage("original") as done:
        clock[0] += 5
        done(5, "1x2x2")
    assert "1/2 original     50%  after 5 s  1x2x2" in screen.getvalue()
    with bar.stage("parity") as done:
        clock[0] += 5
        done(15, "")
        bar.note("a row")
    assert "2/2 parity       50%  after 10 s" in screen.getvalue()
    assert "left" not in screen.getvalue()
    assert "\r\x1b[2Ka row\n" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[2K")
    assert bar.seconds == {"original": 5, "parity": 5}


def test_a_log_gets_a_line_now_and_then(clock: list[float]) -> None:
    bar = Progress(log := io.StringIO())
    bar.plan({"original": 10})
    with bar.stage("original") as done:
        for _ in range(10):
            clock[0] += 2
            done(1, "pack")
    assert log.getvalue().count("\n") == 3
    assert "\x1b" not in log.getvalue()
    assert " 1/1 original     30%  after 6 s  pack\n" in log.getvalue()
