"""Converts a masked autoencoder of facebookresearch/mae or of the Hugging Face hub.

    python tools/convert_mae.py INPUT OUTPUT [--image-size=PIXELS ...]

is short for `jaxad convert --from=mae` (a file .pth) or `--from=hf-mae` (a folder of the hub, or a
.safetensors or .bin file), with the same further options.
"""

from __future__ import annotations

import pathlib
import sys

from jaxad import cli


def main() -> int:
    if len(sys.argv) < 3 or "--help" in sys.argv:
        print(__doc__)
        return 0 if "--help" in sys.argv else cli.USER_ERROR
    source, output, *options = sys.argv[1:]
    family = "mae" if pathlib.Path(source).suffix in (".pth", ".pt") else "hf-mae"
    return cli.main(
        ["convert", f"--from={family}", f"--input={source}", f"--output={output}", *options]
    )


if __name__ == "__main__":
    sys.exit(main())
