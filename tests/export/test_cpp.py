"""The C++ example, where a compiler, libpng and onnxruntime's header and library are."""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from jaxad.evaluation.predict import load_detector
from jaxad.export.formats import export

from .conftest import waves

HEADER = "onnxruntime_c_api.h"


def done(*command, **options):
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, **options
    )


def include(folder):
    """The folder of the header: named by ONNXRUNTIME_INCLUDE, of Debian's package where that is
    installed, or of the package itself. Its API only grows: an older header does for the library.
    """
    for place in (os.environ.get("ONNXRUNTIME_INCLUDE"), "/usr/include/onnxruntime"):
        if place and (pathlib.Path(place) / HEADER).is_file():
            return pathlib.Path(place)
    return from_debian(folder) or pytest.skip(
        f"there is no {HEADER}: set ONNXRUNTIME_INCLUDE to its folder, or install "
        "libonnxruntime-dev (Debian 13)"
    )


def from_debian(folder):
    """Unpacks the package of Debian 13, the first that has it, without installing it."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    own = done("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    mirror = next((line for line in own.stdout.split() if line.endswith("/debian/")), None)
    keys = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if mirror is None or not keys.is_file():
        return None
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [signed-by={keys}] {mirror} trixie main\n")
    apt = ["apt-get", "-o", f"Dir::Etc::sourcelist={folder}/sources.list", "-o",
           "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={folder}/lists", "-o",
           f"Dir::Cache={folder}", "-o", "Acquire::http::Timeout=20"]  # fmt: skip
    done(*apt, "update")
    done(*apt, "download", "libonnxruntime-dev", cwd=folder)
    for package in folder.glob("*.deb"):
        done("dpkg-deb", "-x", package, folder / "unpacked", check=True)
        return folder / "unpacked" / "usr" / "include" / "onnxruntime"
    return None


@pytest.fixture(scope="module")
def program(project_root, tmp_path_factory):
    for tool in ("cmake", "c++"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not here")
    folder = tmp_path_factory.mktemp("cpp")
    libraries = pathlib.Path(onnxruntime.__file__).parent / "capi"
    library = next(libraries.glob("libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip(f"this onnxruntime has no libonnxruntime.so in {libraries}")
    (folder / "debian").mkdir()
    header = include(folder / "debian")
    # Under the names that a release has beside the full one, and programs ask for.
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    made = done(
        "cmake",
        *("-S", project_root / "examples" / "cpp", "-B", folder / "build"),
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_CXX_FLAGS=-Werror",
        f"-DONNXRUNTIME_INCLUDE={header}",
        f"-DONNXRUNTIME_LIBRARY={folder / 'libonnxruntime.so'}",
    )
    if "PNG" in made.stderr:
        pytest.skip("libpng's header is not here: install libpng-dev")
    assert made.returncode == 0, made.stderr
    made = done("cmake", "--build", folder / "build")
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "build" / "detect"


def with_transparency():
    """A picture that lies on white where its alpha is low."""
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:20, :30] = 100
    return Image.fromarray(np.dstack([waves(102), alpha]))


PICTURES = {
    "good": lambda: Image.fromarray(waves(100)),
    "defect": lambda: Image.fromarray(waves(101, defect=True)),
    "another size": lambda: Image.fromarray(waves(103, (90, 70))),
    "gray": lambda: Image.fromarray(waves(104)).convert("L"),
    "palette": lambda: Image.fromarray(waves(105)).quantize(64),
    "16-bit gray": lambda: Image.fromarray(waves(106)[..., 0].astype(np.uint16) * 257 + 13),
    "transparent": with_transparency,
}


@pytest.mark.slow
def test_it_gives_the_scores_and_maps_of_predict(run, program, tmp_path):
    export(run, tmp_path / "waves.onnx", format="onnx")
    predictor = load_detector(run)
    scale, verdicts = predictor.scale, {}
    for name, make in PICTURES.items():
        make().save(tmp_path / "image.png")
        ran = done(program, tmp_path / "waves.onnx", tmp_path / "image.png", tmp_path / "map.png")
        assert ran.returncode == 0, (name, ran.stderr)
        score, verdicts[name] = ran.stdout.split()
        [prediction] = predictor.predict([str(tmp_path / "image.png")])
        assert float(score) == pytest.approx(prediction.score, rel=1e-5), name
        assert verdicts[name] == ("reject" if prediction.decision else "accept"), name
        share = (prediction.model_map - scale.low) / (scale.high - scale.low)
        drawn = np.asarray(Image.open(tmp_path / "map.png"), int)
        assert np.abs(drawn - 255 * np.clip(share, 0, 1)).max() <= 1, name
    assert verdicts["good"] == "accept" and verdicts["defect"] == "reject"


@pytest.mark.slow
def test_bad_input_ends_in_one_sentence(run, program, tmp_path):
    export(run, tmp_path / "waves.onnx", format="onnx")
    good = tmp_path / "good.png"
    Image.fromarray(waves(100)).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "model.onnx").write_text("no model")
    model, output = tmp_path / "waves.onnx", tmp_path / "map.png"
    for arguments, word in (
        ((model, tmp_path / "cut.png", output), "cut.png cannot be read as PNG"),
        ((model, tmp_path / "text.png", output), "text.png cannot be read as PNG"),
        ((model, tmp_path / "absent.png", output), "absent.png cannot be opened"),
        ((tmp_path / "model.onnx", good, output), "onnxruntime: "),
        ((model, good, tmp_path / "absent" / "map.png"), "map.png cannot be opened"),
        ((model, good), "use: detect"),
    ):
        ran = done(program, *arguments)
        assert ran.returncode == 2 and word in ran.stderr, (word, ran.stderr)
        assert len(ran.stderr.splitlines()) == 1 and not ran.stdout
    assert not output.exists()
