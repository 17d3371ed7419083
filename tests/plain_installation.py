"""Runs every command of an installation without extras once, as a user's first hour would.

    make plain

The Makefile builds the wheel, installs it alone in an empty environment, and calls this file with
that environment's Python, in a folder where no checkout is near. Nothing here imports what an extra
brings; a command that needs more than its installation says so by a traceback, and ends this.
"""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

import jaxad
from jaxad.cli.arguments import COMMANDS

GOLDEN = pathlib.Path(__file__).parent / "golden" / "convert"
EXTRAS = ("tensorflow", "safetensors", "beartype", "pytest")


def run(command: str, *arguments: str) -> str:
    """Runs one command, shows it, and ends this program if it fails."""
    print("jaxad", command, *arguments, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "jaxad", command, *arguments], text=True, capture_output=True
    )
    if done.returncode:
        sys.exit(f"jaxad {command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def write_images(root: pathlib.Path) -> None:
    """Gray noise with a white square as the defect, in the MVTec layout."""
    generator = np.random.default_rng(0)
    for folder, number in (("train/good", 20), ("test/good", 2), ("test/square", 2)):
        (root / folder).mkdir(parents=True)
        for i in range(number):
            pixels = generator.integers(96, 160, (32, 32, 3), np.uint8)
            if folder == "test/square":
                pixels[8:16, 8:16] = 255
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 8:16] = 255
    (root / "ground_truth/square").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(mask).save(root / f"ground_truth/square/{i}_mask.png")


def main() -> None:
    """Runs all commands and checks that none was left out."""
    found = [name for name in EXTRAS if importlib.util.find_spec(name)]
    assert not found, f"this environment has extras: {found}"
    checkout = pathlib.Path(__file__).parent.parent
    assert not pathlib.Path(jaxad.__file__).is_relative_to(checkout / "jaxad"), jaxad.__file__

    called = set()

    def call(command: str, *arguments: str) -> str:
        called.add(command)
        return run(command, *arguments)

    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        data, deep = place / "data" / "squares", str(place / "vqvae")
        write_images(data)
        root = f"--config.data.root={data.parent}"
        tiny = [root, "--config.data.category=squares", "--config.data.image_size=32,32"]
        call("config", "pca")
        call("data", "inspect", f"--root={data.parent}", "--category=squares")
        call("train", "--config=vqvae:small", f"--workdir={deep}", *tiny, "--config.train.steps=2")
        call("evaluate", f"--workdir={deep}")
        assert (place / "vqvae/metrics.json").is_file() and (place / "vqvae/report.html").is_file()
        results, program = str(place / "results"), str(place / "vqvae.stablehlo")
        images = str(data / "test")
        call("predict", f"--workdir={deep}", f"--input={images}", f"--output={results}", "--tiff")
        call("score", f"--maps={results}", f"--root={data.parent}", "--category=squares")
        call("export", f"--workdir={deep}", f"--output={program}")
        assert pathlib.Path(program).stat().st_size > 0
        weights = ["--from=timm-vit", f"--input={GOLDEN / 'timm_vit.pth'}", "--heads=2"]
        call("convert", *weights, f"--output={place / 'weights'}")
        call("benchmark", "--configs", "pca", f"--workdir={place / 'grid'}", *tiny)
        squares = [f"--root={data.parent}", "--category=squares", "--configs", "pca"]
        call("select", *squares, f"--workdir={place / 'select'}")
        assert (place / "select/report.html").is_file()
        call("demo", f"--workdir={place / 'demo'}")
    assert called == set(COMMANDS), f"not tried: {set(COMMANDS) - called}"
    print(f"all {len(called)} commands work on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
