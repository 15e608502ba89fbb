"""Sends a picture and a question to the gateway with the official openai client, and prints the answer as it arrives.

python -m edge_runtime serve --bundle bundle --triton 127.0.0.1:8001 --port 8080
python examples/openai_client.py picture.png "How many circles are there?"
"""

import argparse
import base64
import mimetypes
from pathlib import Path

import openai

parser = argparse.ArgumentParser(description="Ask about a picture.")
parser.add_argument("picture", type=Path)
parser.add_argument("question")
parser.add_argument("--url", default="http://127.0.0.1:8080/v1", help="of the gateway")
args = parser.parse_args()

kind = mimetypes.guess_type(args.picture)[0] or "image/png"
data = base64.b64encode(args.picture.read_bytes()).decode()
stream = openai.OpenAI(base_url=args.url, api_key="none").chat.completions.create(
    model="edge_vlm",
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}},
                {"type": "text", "text": args.question},
            ],
        }
    ],
    max_tokens=64,
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
