"""``jaxad export --format=web``, in Chromium where it and npm's onnxruntime-web are."""

import contextlib
import functools
import http.server
import json
import pathlib
import shutil
import subprocess
import threading
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from jaxad.cli import main as cli
from jaxad.evaluation.predict import load_detector
from jaxad.export.web import RUNTIME_FILES

from .conftest import TILED_SIZE, waves


def export(run, folder, runtime):
    return cli.main(["export", f"--workdir={run}", f"--output={folder}", "--format=web",
                     f"--runtime={runtime}"])  # fmt: skip


def test_the_folder_holds_all_that_the_page_needs(run, tmp_path, capsys):
    (tmp_path / "package" / "dist").mkdir(parents=True)
    for name in RUNTIME_FILES:
        (tmp_path / "package" / "dist" / name).write_text(name)
    assert export(run, tmp_path / "web", tmp_path / "package") == 0
    assert "http.server" in capsys.readouterr().out
    written = {str(f.relative_to(tmp_path / "web")) for f in (tmp_path / "web").rglob("*.*")}
    assert written == {
        "index.html",
        "model.onnx",
        "model.onnx.json",
        "model.onnx.sha256",
        *(f"runtime/{name}" for name in RUNTIME_FILES),
    }
    page = (tmp_path / "web" / "index.html").read_text()
    assert "https://" not in page and "http://" not in page


def test_without_the_package_it_says_how_to_get_it(run, tmp_path, capsys):
    assert export(run, tmp_path / "web", tmp_path / "nowhere") == 2
    assert "npm install onnxruntime-web" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_formats_take_no_runtime(run, tmp_path, capsys):
    command = ["export", f"--workdir={run}", f"--output={tmp_path / 'x'}", "--runtime=x"]
    assert cli.main(command) == 2
    assert "leave --runtime out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """npm's onnxruntime-web."""
    folder = tmp_path_factory.mktemp("npm")
    if not shutil.which("npm") or not shutil.which("chromedriver"):
        pytest.skip("npm or chromedriver is not here")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "onnxruntime-web"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm has no onnxruntime-web here: {done.stderr[-200:]}")
    return folder / "node_modules" / "onnxruntime-web"


@contextlib.contextmanager
def served(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


class Browser:
    """The little of WebDriver that is needed."""

    def __init__(self, port, profile):
        self.base = f"http://127.0.0.1:{port}"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update",
                     "--disable-sync", f"--user-data-dir={profile}"]  # fmt: skip
        capabilities = {"goog:chromeOptions": {"args": arguments}}
        made = self.call("/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.base += "/session/" + made["sessionId"]

    def call(self, path, body=None, method="POST"):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def run(self, script):
        return self.call("/execute/sync", {"script": script, "args": []})

    def wait(self, script, seconds=120):
        until = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < until, self.run("return document.body.innerText")
            time.sleep(0.2)
        return value


@pytest.fixture
def browser(tmp_path):
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    port = None
    while port is None:
        line = driver.stdout.readline()
        assert line, "chromedriver ended"
        if "successfully on port" in line:
            port = int(line.rsplit(" ", 1)[1].strip(" .\n"))
    made = Browser(port, tmp_path / "profile")
    yield made
    with contextlib.suppress(OSError):
        made.call("", method="DELETE")
    driver.terminate()
    driver.wait()


@pytest.mark.slow
def test_chromium_gives_the_scores_of_predict(run, package, browser, tmp_path):
    assert export(run, tmp_path / "web", package) == 0
    files = []
    for seed, defect, size in (
        (100, False, (48, 64)),
        (101, True, (48, 64)),
        (102, True, (90, 70)),
    ):
        files.append(tmp_path / f"{seed}.png")
        Image.fromarray(waves(seed, size, defect=defect)).save(files[-1])
    judged_as_by_predict(run, files, tmp_path / "web", browser)
    damaged_files_are_not_used(tmp_path / "web", browser)


@pytest.mark.slow
def test_chromium_judges_photographs_by_tiles(tiled_run, package, browser, tmp_path):
    assert export(tiled_run, tmp_path / "web", package) == 0
    files = []
    for seed in (100, 101):
        files.append(tmp_path / f"{seed}.png")
        Image.fromarray(waves(seed, TILED_SIZE, defect=seed == 101)).save(files[-1])
    judged_as_by_predict(tiled_run, files, tmp_path / "web", browser)
    # The page is still there; a photograph of another size has no card.
    Image.fromarray(waves(102)).save(tmp_path / "small.png")
    with served(tmp_path / "web") as address:
        browser.call("/url", {"url": address})
        browser.wait("return document.getElementById('files').disabled === false")
        assert browser.run("return document.getElementById('camera').disabled")
        (element,) = browser.call("/element", {"using": "css selector", "value": "#files"}).values()
        browser.call(f"/element/{element}/value", {"text": str(tmp_path / "small.png")})
        said = "return document.getElementById('status').textContent"
        browser.wait(f"{said}.includes('64 x 48')")
        assert "takes photographs of 110 x 75" in browser.run(said)
        assert browser.run("return document.querySelectorAll('figure').length") == 0


def damaged_files_are_not_used(folder, browser):
    status = "return document.getElementById('status').textContent"
    wasm = "runtime/ort-wasm-simd-threaded.wasm"
    for name, said in (("model.onnx", "model.onnx is damaged"), (wasm, "wasm is damaged"),
                       ("runtime/ort.wasm.min.js", "Loading"), ("index.html", "Loading")):  # fmt: skip
        good = (folder / name).read_bytes()
        content = bytearray(good)
        # Of the page, the sign that makes a verdict.
        place = good.index(b"score > threshold") + 6 if name == "index.html" else len(good) // 2
        content[place] ^= 2
        (folder / name).write_bytes(content)
        with served(folder) as address:
            browser.call("/url", {"url": f"{address}?{name}"})
            if said != "Loading":
                browser.wait(f"{status}.includes('cannot be loaded')", 30)
            time.sleep(1)
            assert said in browser.run(status)
            assert browser.run("return document.getElementById('files').disabled")
        (folder / name).write_bytes(good)


def judged_as_by_predict(run, files, folder, browser):
    with served(folder) as address:
        browser.call("/url", {"url": address})
        browser.wait("return document.getElementById('files').disabled === false")
        chooser = browser.call("/element", {"using": "css selector", "value": "#files"})
        (element,) = chooser.values()
        browser.call(f"/element/{element}/value", {"text": "\n".join(map(str, files))})
        browser.wait(
            f"return document.querySelectorAll('figure[data-score]').length == {len(files)}"
        )
        found = browser.run(
            "return Array.from(document.querySelectorAll('figure'), f => "
            "[f.querySelector('small').textContent, Number(f.dataset.score), f.dataset.verdict])"
        )
        predictions = {pathlib.Path(p.path).name: p for p in load_detector(run).predict(files)}
        assert {name for name, _, _ in found} == {*predictions}
        for name, score, verdict in found:
            np.testing.assert_allclose(score, predictions[name].score, rtol=1e-5)
            assert verdict == ("reject" if predictions[name].decision else "accept")
        # At the slider's left end everything is rejected.
        browser.run("const s = document.getElementById('threshold'); s.value = 0; "
                    "s.dispatchEvent(new Event('input'))")  # fmt: skip
        verdicts = browser.run(
            "return Array.from(document.querySelectorAll('figure'), f => f.dataset.verdict)"
        )
        assert set(verdicts) == {"reject"}
        colours = browser.run(
            "return Array.from(document.querySelectorAll('canvas.map'), c => new Set(new Uint32Array("
            "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size)"
        )
        assert max(colours) > 20, "no map is drawn"
