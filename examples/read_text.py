"""Reads the text on a picture through the gateway, with its log-probability: a low one asks for a second look.

Small print needs pixels: start the gateway with a larger --max-pixels (0 means all that the bundle allows).

python examples/read_text.py sign.png
"""

import argparse
import base64
import math
from pathlib import Path

import openai

parser = argparse.ArgumentParser(description="Read the text on a picture.")
parser.add_argument("picture", type=Path)
parser.add_argument("--question", default="Read the text.")
parser.add_argument("--url", default="http://127.0.0.1:8080/v1", help="of the gateway")
args = parser.parse_args()

data = base64.b64encode(args.picture.read_bytes()).decode()
completion = openai.OpenAI(base_url=args.url, api_key="none").chat.completions.create(
    model="edge_vlm",
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
                {"type": "text", "text": args.question},
            ],
        }
    ],
    logprobs=True,
    temperature=0,
)
choice = completion.choices[0]
print(choice.message.content)
weakest = min(choice.logprobs.content, key=lambda token: token.logprob)
print(f"least certain: {weakest.token!r}, {math.exp(weakest.logprob):.3f}")
