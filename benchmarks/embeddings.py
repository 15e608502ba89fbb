"""Embeddings of pictures through the gateway against the bare tower: pictures a second, in turns, medians of the rounds.

The bundle is CLIP's of the published ViT-B/32 shape with random weights. The bare tower gets finished patches, one
picture a call; the gateway gets JPEGs in JSON, decodes them, runs the same tower and writes the vectors as base64. The
last line is JSON.
"""

import argparse
import base64
import http.client
import io
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import numpy as np
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.encode import seconds
from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from edge_runtime import Embedder
from tiny_model.scenes import shapes_scene

VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
VISION |= {"image_size": 224, "patch_size": 32}
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}


def write(folder: Path) -> None:
    """A checkpoint with random weights."""
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    ids = {mark: place for place, mark in enumerate(marks.values())}
    bytes_of = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab=ids | {one: len(ids) + place for place, one in enumerate(bytes_of)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    around = [(mark, ids[mark]) for mark in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", around)
    text = TEXT | {"vocab_size": 300, "max_position_embeddings": 77}
    text |= {"bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"], "pad_token_id": ids["<pad>"]}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=512)
    transformers.CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **marks).save_pretrained(folder)


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    shapes_scene(Random(seed), 320, 256, 3).image.save(file, "JPEG")
    return file.getvalue()


def measure(bundle: Path, count: int, rounds: int, threads: int) -> dict[str, object]:
    embedder, files = Embedder.from_bundle(bundle, threads=threads), [picture(seed) for seed in range(count)]
    items = [embedder.item(file) for file in files]
    urls = [{"image": "data:image/jpeg;base64," + base64.b64encode(file).decode()} for file in files]
    body = json.dumps({"model": "edge_vlm", "input": urls, "encoding_format": "base64"})
    serve = [sys.executable, "-m", "edge_runtime", "serve", "--bundle", str(bundle), "--port", "0"]
    serve += ["--threads", str(threads), "--limit-mm-per-prompt", json.dumps({"image": count})]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            parts = urlsplit(process.stdout.readline().strip())

            def bare() -> np.ndarray:
                return np.concatenate([embedder.encode([item]) for item in items])

            def through() -> np.ndarray:
                # a new connection each time: the gateway closes one that is idle while the bare tower runs
                connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=300)
                connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
                answer = json.load(connection.getresponse())
                connection.close()
                return np.stack([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]])

            ours, theirs = bare(), through()  # warm, and the same
            ours /= np.linalg.norm(ours, axis=1, keepdims=True)
            assert np.abs(ours - theirs).max() < 1e-5
            pairs = [(seconds(bare), seconds(through)) for _ in range(rounds)]
        finally:
            process.terminate()
            process.wait(30)
    return {
        "num_pictures": count,
        "rounds": rounds,
        "tower_pictures_per_s": round(count / statistics.median(tower for tower, _ in pairs), 2),
        "gateway_pictures_per_s": round(count / statistics.median(gateway for _, gateway in pairs), 2),
        "gateway_over_tower": round(statistics.median(tower / gateway for tower, gateway in pairs), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time embeddings through the gateway against the bare tower.")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of a call of the tower on either side, 0 for all cores")
    add_out(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "model")
        export = [sys.executable, "-m", "export.vision", f"{folder}/model", f"{folder}/bundle"]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        result = measure(Path(folder) / "bundle", args.pictures, args.rounds, args.threads)
    facts = {"benchmark": "embeddings", "model": "CLIP ViT-B/32, random weights, fp32", "machine": machine()}
    finish(facts | {"threads": args.threads} | result, args.out)


if __name__ == "__main__":
    main()
