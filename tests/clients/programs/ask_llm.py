"""Simon Willison's llm, with the gateway in extra-openai-models.yaml. It cannot force a tool."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from asks import HELLO, KEY, MAX_TOKENS, MODEL, PICTURE, QUESTION, URL, report

folder = Path(tempfile.mkdtemp())
os.environ["LLM_USER_PATH"] = str(folder)
(folder / "extra-openai-models.yaml").write_text(
    f"- model_id: edge\n  model_name: {MODEL}\n  api_base: {URL}\n  vision: true\n  supports_schema: true\n"
)

import llm  # noqa: E402
from form_models import Shapes  # noqa: E402

model = llm.get_model("edge")


def ask(question: str, *pictures: Path, **options: Any) -> Any:
    shown = [llm.Attachment(path=str(path)) for path in pictures]
    return model.prompt(question, attachments=shown, key=KEY, temperature=0, max_tokens=MAX_TOKENS, **options)


report(
    chat=lambda: ask(HELLO, stream=False).text(),
    picture=lambda: ask(QUESTION, PICTURE, stream=False).text(),
    stream=lambda: list(ask(QUESTION, PICTURE, stream=True)),
    structured=lambda: json.loads(ask(QUESTION, PICTURE, schema=Shapes, stream=False).text()),
)
