"""What every client asks, and how its program reports: a JSON object of the answers, on the last line of its output.

The programs run in environments that hold one client's package and nothing of ours.
"""

import asyncio
import base64
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

URL = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080/v1")
ROOT = URL.removesuffix("/v1")
MODEL, KEY = "edge_vlm", "none"
HELLO = "Hello."
QUESTION = os.environ.get("QUESTION", "")
PICTURE = Path(os.environ.get("PICTURE", "picture.png"))
TOKENIZER = os.environ.get("TOKENIZER", "")  # the folder of a checkpoint
MAX_TOKENS = 64
SHAPES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "shape": {"type": "string", "enum": ["circle", "square", "star"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["shape", "count"],
    "additionalProperties": False,
}
WAIT: dict[str, Any] = {
    "type": "object",
    "properties": {"seconds": {"type": "integer", "enum": [1, 2]}},
    "required": ["seconds"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "shapes", "strict": True, "schema": SHAPES}}
WAIT_TOOL = {"type": "function", "function": {"name": "wait", "description": "Waits.", "parameters": WAIT}}
WAIT_CHOICE = {"type": "function", "function": {"name": "wait"}}


def data_url() -> str:
    return f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"


def picture_message(question: str = QUESTION) -> dict[str, Any]:
    """A user's message in OpenAI's form."""
    picture = {"type": "image_url", "image_url": {"url": data_url()}}
    return {"role": "user", "content": [picture, {"type": "text", "text": question}]}


def called(name: str, arguments: Any) -> dict[str, Any]:
    """A tool call as the suite compares it; `arguments` as an object or as its JSON."""
    return {"name": name, "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments}


def report(**asks: Callable[[], Any]) -> None:
    """Run each ask, and print its answer, or the error that it raised."""
    said = {}
    for name, ask in asks.items():
        try:
            answer = asyncio.run(_awaited(ask)) if inspect.iscoroutinefunction(ask) else ask()
            said[name] = {"answer": answer}
        except Exception as error:
            said[name] = {"error": f"{type(error).__name__}: {error}"[:2000]}
    print(json.dumps(said), flush=True)


async def _awaited(ask: Callable[[], Any]) -> Any:
    return await ask()
