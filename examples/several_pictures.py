"""Several pictures in one conversation: the gateway encodes and sends each once, and then only names it.

python examples/several_pictures.py first.png second.png
"""

import argparse
import base64
from pathlib import Path

import openai

parser = argparse.ArgumentParser(description="Ask about several pictures, one after the other.")
parser.add_argument("pictures", type=Path, nargs="+")
parser.add_argument("--question", default="Describe the image.")
parser.add_argument("--url", default="http://127.0.0.1:8080/v1", help="of the gateway")
args = parser.parse_args()

client = openai.OpenAI(base_url=args.url, api_key="none")
messages = []
for picture in args.pictures:
    data = base64.b64encode(picture.read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": args.question},
    ]
    messages.append({"role": "user", "content": content})
    completion = client.chat.completions.create(model="edge_vlm", messages=messages, max_tokens=64)
    answer = completion.choices[0].message.content
    messages.append({"role": "assistant", "content": answer})
    details = completion.usage.to_dict()["prompt_tokens_details"]
    print(f"{picture.name}: {answer} [{details['image_tokens']} of {completion.usage.prompt_tokens} prompt tokens]")
