#!/usr/bin/env bash
# transformers 5.23 reads the vocabulary of tokenizer.json and not its normaliser, where tokenizer_config.json names the
# class Qwen2Tokenizer: the ids of a text are other ones than those of the tokenizers library, without a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

made = Tokenizer(models.BPE())
made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
made.train_from_iterator(["which shape is a star"], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
Path("model").mkdir()
made.save("model/tokenizer.json")
Path("model/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))

text = "A Star"
file = Tokenizer.from_file("model/tokenizer.json").encode(text).tokens
loaded = transformers.AutoTokenizer.from_pretrained("model")
theirs = loaded.tokenize(text)
print(f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}")
print(f"expected: AutoTokenizer splits {text!r} as its tokenizer.json says: {file}")
print(f"it does:  {theirs}, with the normaliser {loaded.backend_tokenizer.normalizer}")
assert file != theirs and "".join(theirs).startswith("A"), "the file's normaliser counts now"
PYTHON
