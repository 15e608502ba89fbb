"""Pictures of a folder and what is asked about them: NAME.txt beside NAME.png has questions, one a line."""

from collections.abc import Iterator
from pathlib import Path

from contract.errors import InvalidInput, MediaError
from edge_runtime import Pipeline
from edge_runtime.items.jpeg import jpeg_bytes
from export.upload.listener import Question

USUAL = (  # where a picture has no questions of its own
    "Describe this picture.",
    "What is in this picture?",
    "Which colours are there, and where?",
    "How many objects are there?",
    "Read the text in this picture.",
)


def questions(pipeline: Pipeline, path: Path) -> tuple[list[Question], int]:
    """A picture's questions, which share its rows, and the bytes of its pixels as a JPEG of quality 90.

    Raises:
        InvalidInput: the picture cannot be read, or the file of questions is no text.
    """
    beside, size = path.with_suffix(".txt"), 0
    try:
        texts = beside.read_text(encoding="utf-8").splitlines() if beside.is_file() else list(USUAL)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"{beside} cannot be read: {error}") from error
    found: list[Question] = []
    try:
        for text in filter(None, map(str.strip, texts)):
            content = [{"type": "image", "image": str(path)}, {"type": "text", "text": text}]
            if not found:
                (picture,) = pipeline.items([{"role": "user", "content": content}])
                size = jpeg_bytes(picture, pipeline.encoder.bundle.manifest.card) or 0
            request = pipeline.request([{"role": "user", "content": content}])
            found.append(Question(request.items[0], request.input_ids))
    except MediaError as error:
        raise InvalidInput(f"{path}: {error}") from error
    return found, size


def held_out(paths: list[Path], one_of: int = 4) -> Iterator[tuple[Path, bool]]:
    """Each picture, and whether it judges the codec in the place of teaching it: one of so many does."""
    for number, path in enumerate(paths):
        yield path, number % one_of == one_of - 1
