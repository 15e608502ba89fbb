"""Where a checkpoint lies: in a folder, or on the hub, from which `local_folder` brings it into the local cache.

The tower's export fetches the small files of a hub checkpoint first, and then only the shards that hold the tower:
two of four for an 8B model, instead of 17 GB.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from contract.errors import BundleError
from export import extra

SMALL_FILES = ["*.json", "*.jinja", "merges.txt"]
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def local_folder(model: str, wanted: Callable[[str], bool]) -> Path:
    """The checkpoint folder behind `model`.

    Args:
        model: a folder, or a hub id `owner/name`.
        wanted: says of a tensor's name whether the export needs its shard; it matters for hub ids only.

    Raises:
        BundleError: `model` is no folder and no hub id, or the hub does not give the model.
        MissingExtra: `model` is a hub id, and huggingface_hub is not installed.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path.absolute()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise BundleError(f"MODEL is {model}, a folder or a hub id of the form owner/name is expected")
    extra.require(f"{model} is no folder; the hub", "huggingface_hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, allow_patterns=[*SMALL_FILES, SINGLE]))
        if (folder / SINGLE).is_file() or not (folder / INDEX).is_file():
            return folder
        places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        shards = {shard for name, shard in places.items() if wanted(name)}
        return Path(snapshot_download(model, allow_patterns=[*SMALL_FILES, *sorted(shards)]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BundleError(f"{model} is no folder, and the hub did not give it: {error}") from error
