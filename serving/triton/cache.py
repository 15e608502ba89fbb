"""The launcher's cache of what it makes once: the Triton it downloads and the environment its models run in.

It is `$EDGE_VLM_CACHE`, else `$XDG_CACHE_HOME/edge-vlm`, else `~/.cache/edge-vlm`. A folder in it is whole or absent,
and two launchers that start at once make it once.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from contract.files import published


def cache_folder() -> Path:
    """The cache's place; it need not exist."""
    if own := os.environ.get("EDGE_VLM_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "edge-vlm"


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The cache's folder `name`; when it is absent, `make` fills a temporary folder that then takes its place."""
    target = cache_folder() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with published(target) as work:
                make(work)
    return target
