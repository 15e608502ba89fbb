#!/usr/bin/env bash
# Pillow 12.3.0 decodes a JPEG whose EXIF holds one odd tag, and ImageOps.exif_transpose fails on the same picture: it writes
# the whole EXIF block again to drop the orientation, and one tag that has nothing to do with it cannot be written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet pillow==12.3.0
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import io
import struct

import PIL
from PIL import Image, ImageOps

# Orientation (0x0112, SHORT) 6, and XResolution (0x011a) as ASCII "72", where the standard has RATIONAL.
entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", 0x011A, 2, 3, b"72\0\0")
exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
file = io.BytesIO()
Image.new("RGB", (64, 40), "red").save(file, "JPEG", exif=exif)
picture = Image.open(io.BytesIO(file.getvalue()))
picture.load()
print(f"Pillow {PIL.__version__}: decodes {picture.size}, orientation {picture.getexif()[0x0112]}")
try:
    said = f"size {ImageOps.exif_transpose(picture).size}"
except Exception as error:
    said = f"{type(error).__name__}: {error}"
print("expected: exif_transpose gives (40, 64)")
print(f"it does:  {said}")
assert not said.startswith("size"), "exif_transpose turns it now"
turned = picture.transpose(Image.Transpose.ROTATE_270)
print(f"by the tag alone: {turned.size}")
assert turned.size == (40, 64)
PYTHON
