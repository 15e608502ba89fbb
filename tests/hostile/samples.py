"""Memory, threads and descriptors of a server's processes over time: taken, summed up and drawn."""

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np

from serving.triton.guardian import STUB
from serving.triton.orphans import marked

Sample = tuple[float, float, int, int]  # seconds, RSS in MB, threads, descriptors
WARM_UP = 1 / 3  # of the time


def process_name(pid: int) -> str:
    """The model of a stub, else the program."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return Path(words[1]).parts[-3] if words[0].endswith(STUB) else Path(words[0]).name  # …/MODEL/1/model.py


def sample(shm_prefix: str) -> dict[str, tuple[float, int, int]]:
    """RSS in MB, threads and descriptors of each process of a server, by its name."""
    found = {}
    for pid in marked(shm_prefix):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            values = int(facts["VmRSS"].split()[0]) / 1024, int(facts["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))
            found[process_name(pid)] = (round(values[0], 2), *values[1:])
        except (OSError, KeyError):  # it has just ended
            continue
    return found


def anonymous_bytes(shm_prefix: str) -> dict[str, int]:
    """The anonymous memory of each process of a server: its heap and stacks, without shared memory and mapped files."""
    found = {}
    for pid in marked(shm_prefix):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found[process_name(pid)] = next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous"))
    return found


def percent_an_hour(samples: list[Sample]) -> float:
    """The slope of RSS, fitted over the samples, in percent of their mean."""
    if len(samples) < 3:
        return 0.0
    times, rss = np.array(samples)[:, :2].T
    return round(float(np.polyfit(times, rss, 1)[0] * 3600 / rss.mean() * 100), 1)


def summary(rows: dict[str, list[Sample]]) -> dict[str, dict[str, float]]:
    """Per process: memory at the end, its slope after the warm-up and in each half of that, and what else has grown."""
    found = {}
    for name, samples in rows.items():
        warm = samples[int(len(samples) * WARM_UP) :]
        half = len(warm) // 2 or 1
        threads, descriptors = np.array(warm)[:, 2:].T
        found[name] = {
            "rss_mb": warm[-1][1],
            "rss_percent_an_hour": percent_an_hour(warm),
            "rss_percent_an_hour_first_half": percent_an_hour(warm[:half]),
            "rss_percent_an_hour_second_half": percent_an_hour(warm[half:]),
            "threads_grown": float(np.median(threads[half:]) - np.median(threads[:half])),
            "descriptors_grown": float(np.median(descriptors[half:]) - np.median(descriptors[:half])),
        }
    return found


def draw(rows: dict[str, list[Sample]], path: Path) -> None:
    """Three plots over time, a line for each process."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(8, 8), sharex=True, layout="constrained")
    for column, (axis, name) in enumerate(zip(axes, ("RSS, MB", "threads", "descriptors"), strict=True), 1):
        for process, samples in rows.items():
            axis.plot([row[0] / 60 for row in samples], [row[column] for row in samples], label=process)
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[0].legend()
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=100)
