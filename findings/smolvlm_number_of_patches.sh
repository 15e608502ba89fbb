#!/usr/bin/env bash
# transformers: SmolVLM's image processor tells other tile counts (get_number_of_image_patches) than it makes (__call__).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.23.0 pillow==12.3.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import transformers
from PIL import Image
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

print("transformers", transformers.__version__)
processor = SmolVLMImageProcessorPil(size={"longest_edge": 1000}, max_image_size={"longest_edge": 364})
picture = Image.new("RGB", (1000, 700))
made = processor([[picture]], return_row_col_info=True, return_tensors="np")
rows, columns = made["rows"][0][0], made["cols"][0][0]
told = processor.get_number_of_image_patches(picture.height, picture.width)
print(f"made: {rows} x {columns} tiles and the whole picture, {made['pixel_values'].shape[1]} in all")
print(f"told: {told[1]} x {told[2]} tiles and the whole picture, {told[0]} in all")
assert (rows, columns, made["pixel_values"].shape[1]) == (3, 3, 10), "the tiles that are made changed"
assert told == (7, 2, 3), "what is told changed: the two may agree now"
PYTHON
echo "as described: 10 tiles are made, 7 are told"
