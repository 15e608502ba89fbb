"""Requests for NVIDIA's perf_analyzer: a prompt about one picture, with random embeddings of the server's own widths.

The script asks the server what fits (GET /v2/models/edge_vlm/config), so the file is right for any checkpoint. perf_analyzer
reads the tensors as JSON (FP16 only in base64), each with its shape. Requests of one file may have pictures of different
sizes; its option --shape would allow one alone.
"""

import argparse
import base64
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROMPT_TOKENS = 24  # of text around the picture


def server_facts(http_url: str) -> dict[str, str]:
    """The parameters that the model publishes, as texts by name: widths, token ids, fingerprint."""
    with urllib.request.urlopen(f"http://{http_url}/v2/models/edge_vlm/config", timeout=10) as answer:
        return {name: value["string_value"] for name, value in json.load(answer)["parameters"].items()}


def request(facts: dict[str, str], grid: tuple[int, int, int], max_tokens: int, seed: int) -> dict[str, dict[str, Any]]:
    """One request's tensors as perf_analyzer reads them: text one by one, numbers in base64."""
    random = np.random.default_rng(seed)
    t, h, w = grid
    rows = t * h * w // int(facts["merge_size"]) ** 2
    hidden, levels = int(facts["hidden_size"]), int(facts["num_deepstack_levels"])
    text = random.integers(10, 200, PROMPT_TOKENS)
    marks = int(facts["vision_start_token_id"]), int(facts["vision_end_token_id"])
    ids = [*text[:4], marks[0], *[int(facts["image_token_id"])] * rows, marks[1], *text[4:]]
    arrays: dict[str, NDArray[Any]] = {
        "input_ids": np.array(ids, np.int64),  # (S,)
        "vision_embeddings": (0.1 * random.standard_normal((rows, hidden))).astype(np.float16),  # (N, H)
        "image_grid_thw": np.array([grid], np.int64),  # (1, 3)
    }
    if levels:
        arrays["deepstack_embeddings"] = (0.1 * random.standard_normal((levels, rows, hidden))).astype(np.float16)
    made: dict[str, dict[str, Any]] = {
        name: {"content": {"b64": base64.b64encode(values.tobytes()).decode()}, "shape": list(values.shape)}
        for name, values in arrays.items()
    }
    sampling = json.dumps({"max_tokens": max_tokens, "ignore_eos": True})
    for name, value in (("encoder_fingerprint", facts["encoder_fingerprint"]), ("sampling_parameters", sampling)):
        made[name] = {"content": [value], "shape": [1]}
    return made


def write_inputs(
    out: Path, http_url: str, grids: Sequence[tuple[int, int, int]], max_tokens: int, num_requests: int = 4
) -> None:
    """Write inputs.json into the folder `out`: requests about pictures of each grid in turn."""
    facts = server_facts(http_url)
    requests = [request(facts, grids[seed % len(grids)], max_tokens, seed) for seed in range(num_requests)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "inputs.json").write_text(json.dumps({"data": requests}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="127.0.0.1:8000", help="the server's HTTP port")
    parser.add_argument(
        "--grid", nargs="+", default=["1x32x32"], help="frames x height x width of the pictures, in patches"
    )
    parser.add_argument("--max-tokens", type=int, default=64, help="length of every answer")
    parser.add_argument("--out", type=Path, default=Path("load"))
    args = parser.parse_args()
    grids = [(t, h, w) for t, h, w in (map(int, grid.split("x")) for grid in args.grid)]
    write_inputs(args.out, args.url, grids, args.max_tokens)
    print(f"{args.out}/inputs.json is written")


if __name__ == "__main__":
    main()
