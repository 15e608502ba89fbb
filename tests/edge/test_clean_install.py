"""The edge install in an empty environment: no torch, no transformers, and it encodes a picture."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from random import Random

import numpy as np

from edge_runtime import Pipeline, __version__
from tests.conftest import ROOT
from tiny_model.scenes import shapes_scene

BARRED = ("torch", "transformers", "torchvision", "onnx", "tritonclient", "av")
SCRIPT = f"""
import sys
for name in {BARRED!r}:
    sys.modules[name] = None
from edge_runtime.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_edge_install_encodes_a_picture(tmp_path: Path, bundle_folder: Path, pipeline: Pipeline) -> None:
    picture = tmp_path / "picture.png"
    shapes_scene(Random(5), 160, 128, 3).image.save(picture)
    source = tmp_path / "source"  # building leaves files beside the sources
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "models", "*.egg-info", "tests"))
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", source]
    subprocess.run(install, check=True, timeout=600)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    names = {line.split("==")[0].lower() for line in listed.stdout.splitlines()}
    assert not names & set(BARRED), names
    command = [python.parent / "edge-vlm", "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=tmp_path).stdout
    assert said == f"edge-vlm {__version__}\n"
    assert f"edge-vlm=={__version__}" in listed.stdout
    packages = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    assert all((packages / name / "py.typed").is_file() for name in ("contract", "edge_runtime"))
    out = tmp_path / "x.npz"
    command = [python, "-c", SCRIPT, "encode", "--bundle", bundle_folder, "--out", out, picture]
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path)  # not in the checkout: the install is used
    with np.load(out, allow_pickle=False) as arrays:
        item = pipeline.items([{"role": "user", "content": [{"type": "image", "image": picture}]}])
        here = pipeline.encoder.encode(item)
        np.testing.assert_allclose(arrays["image_embeds"], here.image_embeds, atol=1e-4)
        np.testing.assert_allclose(arrays["deepstack_embeds"], here.deepstack_embeds, atol=1e-4)
        np.testing.assert_array_equal(arrays["grid_thw"], here.grid_thw)


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    script = "import sys; sys.modules['tritonclient'] = None\nfrom edge_runtime import GrpcClient"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert "pip install 'edge-vlm[client]'" in done.stderr
