"""A hub id: found in the local cache, with only the shards that an export needs."""

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from export.families import local_name as tower_name
from export.source.checkpoint import Checkpoint
from tests.export.tiny_checkpoint import write_json

CODE = """
from export.families import local_name as tower_name
from export.source.checkpoint import Checkpoint
from export.source.hub import local_folder
checkpoint = Checkpoint(local_folder("owner/name", lambda name: tower_name(name) is not None))
print(checkpoint.fingerprint, len(checkpoint.tower_shapes), checkpoint.tower_tensor("pos_embed.weight").shape)
"""


def run(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


def test_a_cached_checkpoint_without_the_language_shards(checkpoint: Path, tmp_path: Path) -> None:
    """The cache as the first two downloads leave it: small files and the tower's shard."""
    commit = "0" * 40
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for path in checkpoint.iterdir():
        if path.suffix != ".safetensors":
            (snapshot / path.name).write_bytes(path.read_bytes())
    source = Checkpoint(checkpoint)
    tower, rest = "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"
    weights = load_file(checkpoint / "model.safetensors")
    places = {name: rest if tower_name(name) is None else tower for name in weights}
    write_json(snapshot / "model.safetensors.index.json", {"weight_map": places})
    save_file({n: t for n, t in weights.items() if places[n] == tower}, snapshot / tower, {"format": "pt"})

    done = run(tmp_path, "-c", CODE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == [source.fingerprint, str(len(source.tower_shapes))]

    # The language checkpoint needs the other shard and says so.
    done = run(tmp_path, "-m", "export.language", "owner/name", str(tmp_path / "language"))
    assert done.returncode == 2
    assert f"{rest} is missing" in done.stderr


def test_an_unknown_hub_id(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "export.language", "owner/name", str(tmp_path / "language"), "--json")
    assert done.returncode == 2
    assert done.stderr.startswith("error: owner/name is no folder, and the hub did not give it")
    assert done.stdout == ""
