"""data: URLs of requests: those of edge_runtime.media.source, and vLLM's form for the frames of a camera."""

from edge_runtime.media.source import carried

FRAMES = "data:video/jpeg"  # each frame in base64, with commas between the frames


def decoded(url: str, noun: str) -> bytes | list[bytes]:
    """The bytes that a data: URL carries; for data:video/jpeg a list, the bytes of each frame.

    Args:
        noun: "picture" or "video", for error messages.

    Raises:
        MediaError: the URL carries no base64.
    """
    header, _, body = url.partition(",")
    if header.partition(";")[0].strip().lower() == FRAMES:
        return [carried(f"{header},{frame}", noun) for frame in body.split(",")]
    return carried(url, noun)
