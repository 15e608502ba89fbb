#!/usr/bin/env bash
# transformers: FP8 weights whose last block is a part of one get wrong scales on a CPU.
#
# A config with weight_block_size [128, 128] gives every 128 x 128 values of a weight one scale; a weight of 192 rows has
# two rows of scales, for rows 0 to 127 and 128 to 191. Where no GPU computes in FP8, transformers multiplies the weights
# out while it loads them. It does not read weight_block_size there: it divides 192 by two and takes blocks of 96 rows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6" "transformers==5.23.0" "accelerate==1.15.0" 1>&2
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=128, hidden_size=256, intermediate_size=192, num_hidden_layers=1, num_attention_heads=2, head_dim=128,
    num_key_value_heads=1,
)
LlamaForCausalLM(config).save_pretrained("model")
path, stored, expected = Path("model/model.safetensors"), {}, {}
for name, weight in load_file(path).items():
    if "_proj" not in name:
        stored[name] = weight
        continue
    rows, columns = weight.shape
    scales = 0.5 + torch.rand(-(-rows // 128), -(-columns // 128))  # another scale for each block
    wide = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :columns]
    stored[name] = (weight / wide).to(torch.float8_e4m3fn)
    stored[f"{name}_scale_inv"] = scales
    expected[name] = stored[name].float() * wide
save_file(stored, path, {"format": "pt"})
facts = json.loads(Path("model/config.json").read_text())
facts["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
Path("model/config.json").write_text(json.dumps(facts))

loaded = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32).state_dict()
print(f"transformers {transformers.__version__}, torch {torch.__version__}, on a CPU: FP8 blocks of 128 x 128")
print("expected: each weight is its FP8 value times the scale of its block")
off = {name: ((loaded[name] - weight).abs().max() / weight.abs().max()).item() for name, weight in expected.items()}
for name, far in sorted(off.items()):
    print(f"{name.removeprefix('model.layers.0.'):<28} {list(expected[name].shape)!s:<12} off by {far:.3f} of the largest weight")
parts = {name for name in off if any(size % 128 for size in expected[name].shape)}
assert len(parts) == 3 and all(off[name] < 1e-6 for name in off.keys() - parts), "weights of whole blocks are wrong, too"
assert all(off[name] > 0.05 for name in parts), "parts of blocks have their scales now: the refusal can go"
PYTHON
