"""The machine that a result comes from, in words."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor, cores and system, as a reader of the results needs them. Clouds hide the model behind one name, so its
    family and number stand there too."""
    try:
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        facts = {name.strip(): value.strip() for name, _, value in lines}
        name = facts["model name"] + "".join(
            f" {word} {facts[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in facts
        )
    except (OSError, KeyError):
        name = platform.processor()
    return f"{name}, {os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
