"""The bill of materials of a release, as CycloneDX JSON: every package that an install with all extras can bring.

Versions are those of the running environment, which constraints.txt pins: with them the tests of the release ran. The
bill leaves out vLLM, which is in no environment of ours, and the tools of development.
"""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from kernels.build import ROOT

NAME = "edge-vlm"
LEFT_OUT = {"dev", "vllm"}


def requirements() -> list[str]:
    """`name==version` of everything that the extras need, directly or through others; sorted."""
    extras = set(distribution(NAME).metadata.get_all("Provides-Extra") or ()) - LEFT_OUT
    found: dict[str, str] = {}
    asked = [(NAME, frozenset({"", *extras}))]
    seen = set(asked)
    while asked:
        name, wanted = asked.pop()
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        found[installed.metadata["Name"]] = installed.version
        for line in installed.requires or ():
            one = Requirement(line)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in wanted):
                more = one.name, frozenset({"", *one.extras})
                if more not in seen:
                    seen.add(more)
                    asked.append(more)
    del found[NAME]
    return sorted(f"{name}=={version}" for name, version in found.items())


def write_bill(out: Path) -> Path:
    """Write `edge_vlm-VERSION.cdx.json` into a folder; returns its path."""
    version = distribution(NAME).version
    path = out / f"edge_vlm-{version}.cdx.json"
    out.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "cyclonedx_py", "requirements", "-", "--pyproject", str(ROOT / "pyproject.toml")]
    line += ["--mc-type", "library", "--output-reproducible", "--of", "JSON", "-o", str(path)]
    subprocess.run(line, input="\n".join(requirements()), text=True, check=True, stderr=subprocess.DEVNULL)
    bill = json.loads(path.read_text(encoding="utf-8"))
    bill["metadata"]["component"]["version"] = version  # pyproject.toml takes it from the package
    path.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    return path
