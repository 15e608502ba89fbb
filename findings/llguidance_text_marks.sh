#!/bin/sh
# Qwen's tokenizers have <think>, </think> and <tool_call> as added tokens with "special": false: they are text. llguidance takes
# every token in angle brackets for a special one. Where a grammar has such a text as a literal, its own mask allows the token
# (alone), and consume_token then refuses it. Where a grammar ends a free text with it, the mask lacks the token.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check llguidance==1.7.6
"$work/venv/bin/python" - <<'PYTHON'
import json

import llguidance
from llguidance import LLMatcher, LLTokenizer, grammar_from

print("llguidance", llguidance.__version__)
kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [byte for byte in range(256) if byte not in kept]
alphabet = [chr(byte) for byte in kept] + [chr(256 + i) for i in range(len(others))]
vocabulary = {piece: i for i, piece in enumerate(alphabet)}  # one token a byte
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
END = {"id": 256, "content": "<end>", "special": True, **flags}


def tokenizer(mark):
    """The tokens of bytes, and a mark that is text, number 257."""
    return LLTokenizer(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": level,
        "post_processor": None, "decoder": level,
        "added_tokens": [END, {"id": 257, "content": mark, "special": False, **flags}],
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocabulary, "merges": []},
    }), eos_token=256)


def tried(mark, grammar, before=()):
    """Whether the mask has the mark's token behind the tokens `before`, and whether the matcher takes it."""
    matcher = LLMatcher(tokenizer(mark), grammar_from("lark", grammar), log_level=0)
    for token in before:
        matcher.compute_bitmask()
        assert matcher.consume_token(token)
    mask = matcher.compute_bitmask()
    return bool(mask[257 // 8] >> 257 % 8 & 1), matcher.consume_token(257)


literal = 'start: "a" "MARK"'
behind = 'start: thought "a"\nthought[suffix="MARK"]: /(?s:.*)/'
a = [vocabulary["a"]]
found = {}
for mark in ("<think>", "[think]"):
    found[mark] = tried(mark, literal.replace("MARK", mark), a), tried(mark, behind.replace("MARK", mark), a)
    print(f"{mark}: as a literal (in the mask, taken) {found[mark][0]}; behind free text {found[mark][1]}; expected True twice")
assert found["[think]"] == ((True, True), (True, True)), "square brackets are text"
assert found["<think>"] == ((True, False), (False, False)), "angle brackets are now something else: the finding is over"
PYTHON
