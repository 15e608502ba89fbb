"""What the rows say of int8: how many times faster than the best peer, and how accurate; and of fp32 beside OpenVINO's.

A peer counts as equal where its mean cosine against fp32 is at least MIN_COSINE on every level.
"""

from typing import Any

from benchmarks.edge.sizes import SIZES

MIN_COSINE = 0.999
OURS, CALIBRATED = "ours int8", "OpenVINO int8"
FP32 = ("ours fp32", "OpenVINO fp32")


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Per size best_peer, int8_vs_best_peer (times as fast; cpu: by processor time), int8_vs_openvino_int8, which need
    not be equal, fp32_vs_openvino_fp32, and int8_cosine_outliers, the worst over the sizes. `rows` are those of
    `driver.measure`.
    """
    found: dict[str, Any] = {}
    for size in SIZES:
        timed = {name: row[size] for name, row in rows.items() if "wall_ms" in row.get(size, {})}
        if all(name in timed for name in FP32):
            mine, theirs = (timed[name]["wall_ms"] for name in FP32)
            found[f"fp32_vs_openvino_fp32_{size}"] = round(theirs / mine, 2)
        if OURS not in timed:
            continue
        mine = timed[OURS]
        peers = [n for n in timed if not n.startswith("ours") and timed[n]["cosine"]["mean"] >= MIN_COSINE]
        if peers:
            best = min(peers, key=lambda name: timed[name]["wall_ms"])
            found[f"best_peer_{size}"] = best
            found[f"int8_vs_best_peer_{size}"] = round(timed[best]["wall_ms"] / mine["wall_ms"], 2)
            found[f"int8_vs_best_peer_cpu_{size}"] = round(timed[best]["cpu_ms"] / mine["cpu_ms"], 2)
        if CALIBRATED in timed:
            found[f"int8_vs_openvino_int8_{size}"] = round(timed[CALIBRATED]["wall_ms"] / mine["wall_ms"], 2)
        kept = found.setdefault("int8_cosine_outliers", {"mean": 1.0, "lowest": 1.0})
        found["int8_cosine_outliers"] = {key: min(kept[key], mine["cosine"][key]) for key in kept}
    return found
