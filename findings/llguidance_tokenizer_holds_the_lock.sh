#!/bin/sh
# llguidance compiles grammars and computes masks without Python's lock, as its stubs say. Building the tokenizer, which takes
# seconds for a vocabulary of 150,000 tokens, keeps the lock from beginning to end: every other thread of the process stands.
# A server that builds it at the first request with a grammar stops all its streams. Build it before the server serves.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check llguidance==1.7.6
"$work/venv/bin/python" - <<'PYTHON'
import json
import threading
import time

import llguidance
from llguidance import LLMatcher, LLTokenizer

print("llguidance", llguidance.__version__)
# byte-level BPE: 256 bytes, all pairs of letters, and triples up to 60,000 tokens
kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [byte for byte in range(256) if byte not in kept]
alphabet = [chr(byte) for byte in kept] + [chr(256 + i) for i in range(len(others))]
vocabulary, merges = {piece: i for i, piece in enumerate(alphabet)}, []
letters = [chr(code) for code in range(97, 123)] + [chr(code) for code in range(65, 91)]
pairs = [a + b for a in letters for b in letters]
for whole in [*pairs, *(pair + letter for pair in pairs for letter in letters)][:60_000]:
    merges.append([whole[:-1], whole[-1]])
    vocabulary[whole] = len(vocabulary)
end = len(vocabulary)
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
text = json.dumps({
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": level,
    "post_processor": None, "decoder": level, "added_tokens": [{"id": end, "content": "<end>", **flags}],
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
              "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
              "vocab": vocabulary, "merges": merges},
})

gaps, is_over = [], threading.Event()


def tick():
    last = time.perf_counter()
    while not is_over.is_set():
        time.sleep(0.002)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now


def measured(name, work):
    gaps.clear()
    begun = time.perf_counter()
    made = work()
    took = time.perf_counter() - begun
    time.sleep(0.05)
    longest = max(gaps)
    print(f"{name}: {took * 1e3:.0f} ms, another thread stood for {longest * 1e3:.0f} ms of them")
    return made, longest / took


threading.Thread(target=tick, daemon=True).start()
tokenizer, of_building = measured("LLTokenizer", lambda: LLTokenizer(text, eos_token=end))
properties = {f"p{i}": {"type": "integer"} for i in range(8000)}
grammar = LLMatcher.grammar_from_json_schema({"type": "object", "properties": properties, "required": [*properties]})
matcher, of_compiling = measured("LLMatcher", lambda: LLMatcher(tokenizer, grammar))
is_over.set()
assert not matcher.is_error(), matcher.get_error()
assert of_building > 0.8, f"the lock is free while the tokenizer is built ({of_building:.2f}): the finding is over"
assert of_compiling < 0.8, f"the lock is held while a grammar compiles ({of_compiling:.2f}): the finding has changed"
PYTHON
