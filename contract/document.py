"""`python -m contract.document` writes the tables of docs/contract.md from the code; a test fails if they are stale."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from contract.checks import CHECKS, STATUSES, VISION_CHECKS, Check
from contract.limits import Limits
from contract.sampling import Sampling
from contract.tensors import INPUTS, OUTPUTS, VISION_INPUTS, VISION_OUTPUTS, TensorSpec

PAGE = Path(__file__).parents[1] / "docs" / "contract.md"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [tuple(head), *rows]
    texts = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return "\n".join([texts[0], re.sub(r"[^|]+", "---", texts[0]), *texts[1:]])


def _tensors(specs: Iterable[TensorSpec]) -> str:
    rows = ((f"`{s.name}`", f"{s.datatype} {list(s.shape)}", s.meaning) for s in specs)
    return _table(("tensor", "type and shape", "meaning"), rows)


def _defaults(kind: type) -> str:
    rows = ((f"`{f.name}`", "none" if f.default in (None, ()) else f"{f.default}".lower()) for f in fields(kind))
    return _table(("name", "default"), rows)


def _checks(checks: Mapping[str, Check]) -> str:
    rows = (
        (name, c.tensor, c.allowed, c.error.code, STATUSES[c.error.code][0], STATUSES[c.error.code][1])
        for name, c in checks.items()
    )
    return _table(("check", "where", "allowed", "code", "HTTP", "gRPC"), rows)


def page(text: str) -> str:
    """The text of the page with every table between its marks written anew.

    Raises:
        ValueError: the page has no table of one of the names, or several.
    """
    tables = {
        "inputs": _tensors(INPUTS),
        "outputs": _tensors(OUTPUTS),
        "vision inputs": _tensors(VISION_INPUTS),
        "vision outputs": _tensors(VISION_OUTPUTS),
        "sampling": _defaults(Sampling),
        "limits": _defaults(Limits),
        "checks": _checks(CHECKS),
        "vision checks": _checks(VISION_CHECKS),
    }
    for name, table in tables.items():
        marks = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        found = list(re.finditer(marks, text, re.DOTALL))
        if len(found) != 1:
            raise ValueError(f"{PAGE} has {len(found)} tables marked {name!r}, 1 is expected")
        start, end = found[0].end(1), found[0].start(2)
        text = f"{text[:start]}{table}\n{text[end:]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
