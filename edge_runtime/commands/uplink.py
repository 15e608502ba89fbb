"""Seconds from a picture to the server by codec, on an uplink of a given speed: the table of `bench --uplink`."""

import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs import int8
from contract.codecs.codec import CODECS
from edge_runtime.encoded_item import PRECISIONS, EncodedItem, Precision

REPEATS = 5


def table(item: EncodedItem, tower_s: float, uplink_mbit_s: float) -> list[dict[str, Any]]:
    """One row for each codec of this bundle: bytes, milliseconds to encode and decode, seconds of the upload alone,
    with the codec, and of the whole way (tower, codec, upload). Codec times are medians on this machine; headers and
    round trips do not count.

    Args:
        item: the picture or video that travels.
        tower_s: the seconds that the tower takes for the item.
        uplink_mbit_s: the speed of the uplink, in Mbit/s.
    """
    found = []
    for name in PRECISIONS:
        if name in CODECS and (item.numbers is None or name not in item.numbers.names):
            continue
        encode_s, decode_s, size = _timed(item, name)
        upload_s = size * 8 / uplink_mbit_s / 1e6
        found.append(
            {
                "codec": name,
                "bytes": size,
                "encode_ms": round(encode_s * 1e3, 2),
                "decode_ms": round(decode_s * 1e3, 2),
                "upload_s": round(upload_s, 3),
                "codec_and_upload_s": round(encode_s + upload_s + decode_s, 3),
                "picture_to_server_s": round(tower_s + encode_s + upload_s + decode_s, 3),
            }
        )
    return sorted(found, key=lambda row: row["bytes"])


def text(rows: list[dict[str, Any]], uplink_mbit_s: float) -> str:
    """The table as text for people."""
    lines = [f"at {uplink_mbit_s:g} Mbit/s", f"{'codec':6} {'MiB':>7} {'codec ms':>9} {'upload s':>9} {'in all s':>9}"]
    for row in rows:
        both_ms = row["encode_ms"] + row["decode_ms"]
        lines.append(
            f"{row['codec']:6} {row['bytes'] / (1 << 20):7.3f} {both_ms:9.1f} {row['upload_s']:9.2f} "
            f"{row['picture_to_server_s']:9.2f}"
        )
    return "\n".join(lines)


def _timed(item: EncodedItem, name: Precision) -> tuple[float, float, int]:
    """The median seconds to encode and to decode, and the bytes on the wire."""
    encoding, decoding, size = [], [], 0
    for _ in range(REPEATS + 1):
        fresh = EncodedItem(item.is_video, item.grid_thw, item.main, item.deepstack, numbers=item.numbers)
        begun = time.perf_counter()
        arrays = fresh.wire(name)
        encoded = time.perf_counter()
        _decoded(name, arrays, item)
        decoding.append(time.perf_counter() - encoded)
        encoding.append(encoded - begun)
        size = sum(array.nbytes for array in arrays)
    return statistics.median(encoding[1:]), statistics.median(decoding[1:]), size


def _decoded(name: Precision, arrays: tuple[NDArray[Any], NDArray[Any]], item: EncodedItem) -> Any:
    if name in CODECS:
        assert item.numbers is not None  # for mypy: else it is not in the table
        return CODECS[name].decode(*arrays, item.numbers)
    if name == "int8":
        return int8.dequantise(*arrays)
    return tuple(array.astype(np.float32) for array in arrays)
