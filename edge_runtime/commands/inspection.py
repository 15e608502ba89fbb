"""What a bundle is, and whether a request's embeddings look like embeddings."""

from typing import Any

import numpy as np

from edge_runtime.bundle import Bundle
from edge_runtime.request import Request


def bundle_card(bundle: Bundle) -> dict[str, Any]:
    """The facts of a bundle that a person asks for first."""
    manifest = bundle.manifest
    errors, cosines = (
        [row[key] for row in manifest.parity if row.get(key) is not None] for key in ("relative_error", "min_cosine")
    )
    adapter = {"adapter": manifest.adapter} if manifest.adapter else {}
    return adapter | {
        "family": manifest.card.family,
        "hidden_size": manifest.card.hidden_size,
        "deepstack_levels": manifest.card.num_deepstack_levels,
        "precision": manifest.precision,
        "encoder_fingerprint": manifest.card.encoder_fingerprint,
        "image_pixels": [manifest.image.min_pixels, manifest.image.max_pixels],
        "graph_bytes": sum(
            (bundle.folder / name).stat().st_size for name in manifest.files if name.startswith("vision.")
        ),
        "parity_rows": len(manifest.parity),
        "parity_max_relative_error": max(errors, default=None),
        "parity_min_cosine": min(cosines, default=None),
    }


def compared(bundle: Bundle) -> list[dict[str, Any]]:
    """What the export compared with transformers: gate, what, how many cases, and the largest difference.

    The export publishes a bundle only where inputs are equal, so their difference is 0. A bundle of an older export,
    which did not compare inputs, has the rows of the graph only.
    """
    outputs: dict[str, list[float]] = {}
    for row in bundle.manifest.parity:
        outputs.setdefault(str(row["output"]), []).append(float(row["relative_error"]))
    inputs = [row | {"difference": 0.0} for row in bundle.manifest.gates]
    return inputs + [
        {"gate": "graph", "compared": f"{name} of packs of grids", "cases": len(errors), "difference": max(errors)}
        for name, errors in outputs.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as lines of text, in aligned columns."""
    if not rows:
        return "nothing"
    cells = [
        [*rows[0]],
        *([f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def request_report(request: Request, pad_token_ids: tuple[int, ...]) -> dict[str, Any]:
    """Token ids, grids, where the pads stand, and checks of the embeddings: finite, not zero, width, row count."""
    pads = np.flatnonzero(np.isin(request.input_ids, pad_token_ids))
    levels = [request.main, *request.deepstack]
    return {
        "input_ids": request.input_ids.tolist(),
        "image_grid_thw": request.image_grid_thw.tolist(),
        "video_grid_thw": request.video_grid_thw.tolist(),
        "vision_token_positions": pads.tolist(),
        "embeddings": {
            "shape": list(request.main.shape),
            "deepstack_shape": list(request.deepstack.shape),
            "finite": all(bool(np.isfinite(level).all()) for level in levels),
            "nonzero": all(bool((np.abs(level).max(axis=-1) > 0).all()) for level in levels if level.size),
            "rows_match_pads": len(pads) == len(request.main),
            "rms_per_level": [round(float(np.sqrt((level**2).mean())), 6) for level in levels if level.size],
        },
    }
