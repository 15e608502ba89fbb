"""A real Chromium without a screen and without an installer: the build that npm's @sparticuz/chromium carries.

`python -m tests.ui.browser` (part of `make setup`) downloads it, checked by SHA-256, into .cache/chromium.
"""

import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import brotli
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parent.parent.parent / ".cache" / "chromium"
PACKAGE = "https://registry.npmjs.org/@sparticuz/chromium/-/chromium-147.0.0.tgz"
SHA256 = "18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b"
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{0}/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{0}/font-cache</cachedir></fontconfig>"""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-zygote", "--disable-background-networking", "--disable-component-update",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip


def executable() -> Path:
    """The browser's file, downloaded the first time."""
    chromium = FOLDER / "chromium"
    if not (FOLDER / "ready").is_file():
        with urllib.request.urlopen(PACKAGE, timeout=120) as answer:
            package = answer.read()
        assert hashlib.sha256(package).hexdigest() == SHA256, f"{PACKAGE} is not the file that was tested"
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(package)) as files:
            for name in ("al2023.tar", "fonts.tar"):  # libraries that a bare system lacks, and letters
                with tarfile.open(fileobj=io.BytesIO(_unpacked(files, name))) as inner:
                    inner.extractall(FOLDER, filter="data")
            chromium.write_bytes(_unpacked(files, "chromium"))
        chromium.chmod(0o755)
        (FOLDER / "fonts.conf").write_text(FONTS.format(FOLDER))
        (FOLDER / "ready").touch()
    return chromium


def _unpacked(files: tarfile.TarFile, name: str) -> bytes:
    member = files.extractfile(f"package/bin/{name}.br")
    assert member is not None
    return brotli.decompress(member.read())


@contextmanager
def browser() -> Iterator[Browser]:
    """A running browser."""
    path = executable()
    environment = os.environ | {"LD_LIBRARY_PATH": str(FOLDER / "lib"), "FONTCONFIG_FILE": str(FOLDER / "fonts.conf")}
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS, env=environment)
        yield running
        running.close()


if __name__ == "__main__":
    print(executable())
