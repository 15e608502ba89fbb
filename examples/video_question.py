"""This process encodes a video and a question, and Triton answers; it also prints which frames the model saw.

python examples/video_question.py clip.mp4 "Which way does the shape move?" --bundle bundle --triton 127.0.0.1:8001
"""

import argparse
import sys

from edge_runtime import Encoder, GrpcClient, Pipeline

parser = argparse.ArgumentParser(description="Ask about a video.")
parser.add_argument("video", help="file, or folder of frames")
parser.add_argument("question")
parser.add_argument("--fps", type=float, default=2.0, help="frames looked at per second")
parser.add_argument("--bundle", default="bundle")
parser.add_argument("--triton", default="127.0.0.1:8001")
args = parser.parse_args()

pipeline = Pipeline(Encoder.from_bundle(args.bundle))
content = [{"type": "video", "video": args.video, "fps": args.fps}, {"type": "text", "text": args.question}]
messages = [{"role": "user", "content": content}]
(item,) = pipeline.items(messages)
print("seconds:", *(f"{second:.1f}" for second in item.timestamps), file=sys.stderr)
with GrpcClient(args.triton) as client:
    for delta in client.stream(pipeline.request(messages)):
        print(delta.text, end="", flush=True)
print()
