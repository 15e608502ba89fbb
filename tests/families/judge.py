"""`python -m tests.families.judge FAMILY FOLDER`: a family's checkpoint, its exports, and what the whole model says.

A process of its own, because the environment of vLLM has another transformers than the exports and the judge need.
"""

import json
import sys
from pathlib import Path

import tests.processor  # noqa: F401  declares torchvision's operators before transformers is imported
from tests.families.conftest import served_from
from tests.families.served import conversations

EXPECTED = "expected.json"


def judge(family: str, folder: Path) -> None:
    """Write model, bundle, language checkpoint and the tokens of each conversation into the folder."""
    with served_from(family, folder) as served:
        tokens = {name: served.expected(turns) for name, turns in conversations(family).items()}
    (folder / EXPECTED).write_text(json.dumps(tokens))


if __name__ == "__main__":
    judge(sys.argv[1], Path(sys.argv[2]))
