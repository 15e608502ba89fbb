"""Uploads go with the page, whatever ends it, and stay within a bound while it runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.ui.upload_folder import BROKEN_SECONDS, NEW_SECONDS, PREFIX, UploadFolder, remove_abandoned
from tests.conftest import ROOT
from tests.ui.test_guard import call
from tests.ui.ui_process import ui_process

FORM = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\nx\r\n--b--\r\n'
HOLD = """import sys, tempfile; tempfile.tempdir = sys.argv[1]
from edge_runtime.ui.upload_folder import UploadFolder
with UploadFolder() as folder: print(folder.path, flush=True); sys.stdin.read()"""


@pytest.fixture
def folder() -> Iterator[UploadFolder]:
    with UploadFolder(max_bytes=1000) as folder:
        yield folder
    assert not folder.path.exists()


def put(path: Path, size: int, seconds_ago: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_the_oldest_go_above_the_bound(folder: UploadFolder) -> None:
    uploads = [put(folder.path / str(number) / "picture.png", 400, 5000 - number) for number in range(4)]
    folder.tidy()
    assert [path.exists() for path in uploads] == [False, False, True, True]


def test_the_part_of_a_broken_upload_goes(folder: UploadFolder) -> None:
    left, coming = (put(folder.path / f"tmp{age}", 10, age) for age in (2 * BROKEN_SECONDS, 1))
    whole = put(folder.path / "hash" / "picture.png", 10, 2 * BROKEN_SECONDS)
    folder.tidy()
    assert (left.exists(), coming.exists(), whole.exists()) == (False, True, True)


def test_a_page_takes_away_what_a_killed_one_left(tmp_path: Path) -> None:
    pages = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]  # fmt: skip
    killed, living = (Path(page.stdout.readline().strip()) for page in pages if page.stdout)
    other = tmp_path / f"{PREFIX}other"  # a link leads elsewhere
    other.symlink_to(put(tmp_path / "theirs" / "picture.png", 1, 5000).parent)
    pages[0].kill()
    pages[0].wait()
    remove_abandoned(tmp_path)
    assert killed.exists()  # it is so new that its page may be about to lock it
    for path in (killed, living):
        os.utime(path, (time.time() - 2 * NEW_SECONDS,) * 2)
    remove_abandoned(tmp_path)
    assert (killed.exists(), living.exists()) == (False, True)
    assert (tmp_path / "theirs" / "picture.png").exists()
    pages[1].communicate(timeout=30)
    assert not living.exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_the_uploads_away(bundle_folder: Path, tmp_path: Path, end: signal.Signals) -> None:
    with ui_process(bundle_folder, "127.0.0.1:1", end=end, TMPDIR=str(tmp_path)) as url:
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert call(url, "/gradio_api/upload", FORM, **kind)[0] == 200
        assert list(tmp_path.glob(f"{PREFIX}*/*/x.png"))
    assert not list(tmp_path.glob(f"{PREFIX}*"))
