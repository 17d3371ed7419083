"""How the benchmarks time an ONNX file in headless Chromium, by onnxruntime-web's WebAssembly."""

from __future__ import annotations

import contextlib
import functools
import http.server
import pathlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from selenium import webdriver

# The page of `jaxad export --format=web` does it so: one thread, WebAssembly.
_TIMED = """
const [counts, shape, seconds, done] = arguments;
(async () => {
  const load = async name => new Uint8Array(await (await fetch(name)).arrayBuffer());
  const begun = performance.now();
  ort.env.wasm.wasmPaths = new URL("runtime/", location.href).href;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(await load("model.onnx"));
  const images = await load("images.bin");
  const size = shape.reduce((a, b) => a * b);
  const judge = async count => {
    const pixels = images.subarray(0, count * size);
    const image = new ort.Tensor("uint8", pixels, [count, ...shape]);
    const found = await session.run({image}, ["score", "map", "decision"]);
    return Array.from(found.score.data);
  };
  const found = {scores: await judge(1), first: (performance.now() - begun) / 1000, ms: {}};
  const again = performance.now();
  await judge(1);
  const one = (performance.now() - again) / 1000;
  const least = one < 4 ? 5 : 2;
  for (const count of counts.filter(count => count == 1 || count * one < 60)) {
    found.scores = await judge(count);
    const taken = [];
    let sum = 0;
    while (taken.length < least || (sum < 1000 * seconds && taken.length < 200)) {
      const start = performance.now();
      await judge(count);
      taken.push(performance.now() - start);
      sum += taken[taken.length - 1];
    }
    found.ms[count] = taken;
  }
  done(found);
})().catch(error => done({error: String(error)}));
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@contextlib.contextmanager
def _served(folder: pathlib.Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def timed(
    model: pathlib.Path,
    images: np.ndarray,
    runtime: pathlib.Path,
    folder: pathlib.Path,
    *,
    counts: tuple[int, ...],
    seconds: float,
) -> dict[str, Any]:
    """Runs the file on the first of the images, in a browser of its own.

    Args:
      model: the ONNX file.
      images: ``(n, h, w, 3)`` uint8.
      runtime: folder of the npm package onnxruntime-web.
      folder: empty, for what the browser loads and for its profile.
      counts: images in a call.
      seconds: of every measurement, about.

    Returns:
      ``first``: seconds until the first score, loading included; ``ms``: by count the calls'
      milliseconds, of those counts that a minute suffices for; ``scores`` of as many images as
      the last of them.
    """
    shutil.copytree(runtime / "dist", folder / "runtime")
    shutil.copy(model, folder / "model.onnx")
    images.tofile(folder / "images.bin")
    (folder / "index.html").write_text('<script src="runtime/ort.wasm.min.js"></script>')
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--disable-background-networking", "--disable-component-update", "--no-first-run",
                 f"--user-data-dir={folder / 'profile'}"):  # fmt: skip
        options.add_argument(word)
    driver = webdriver.ChromeService(shutil.which("chromedriver"))
    with _served(folder) as address, webdriver.Chrome(options=options, service=driver) as browser:
        browser.set_script_timeout(1800)
        # How long the answer of chromedriver is waited for; by itself two minutes.
        browser.command_executor.client_config.timeout = 1800
        browser.get(address)
        found = browser.execute_async_script(_TIMED, counts, images.shape[1:], seconds)
    if "error" in found:
        raise RuntimeError(found["error"])
    return found
