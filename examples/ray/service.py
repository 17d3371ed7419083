"""An HTTP endpoint that judges images by a run, on all nodes of a Ray cluster.

    serve run service:app workdir=RUN
    curl --data-binary @photograph.png localhost:8000

An image file in; JSON out: what `jaxad predict` writes of an image into predictions.json, with the
verdict and the anomaly map, a gray PNG (base64) on the run's scale. RUN has the same path on every
node, and has been evaluated or used before, so that its thresholds are there.
"""

import asyncio
import base64
import io

import numpy as np
from PIL import Image
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

import jaxad
from jaxad.data.given import Given

LARGEST = 32 * 2**20  # bytes of a request
AT_ONCE = 16


def answer(prediction) -> dict:
    found = prediction.record() | {"verdict": prediction.verdict, "map": None}
    if prediction.error is None:
        heat, scale = prediction.model_map, prediction.scale
        low, high = scale[:2] if scale else (heat.min(), heat.max())
        share = np.clip((heat - low) / ((high - low) or 1), 0, 1)
        Image.fromarray((255 * share).round().astype(np.uint8)).save(file := io.BytesIO(), "PNG")
        found["map"] = base64.b64encode(file.getvalue()).decode()
    return found


# What exceeds both limits together is answered 503 at once, so that no queue grows.
@serve.deployment(max_ongoing_requests=8 * AT_ONCE, max_queued_requests=8 * AT_ONCE)
class Judge:
    def __init__(self, workdir: str):
        self.detector = jaxad.load_detector(workdir)
        size = (*self.detector.detector.config.data.image_size, 3)
        for count in (1, 2, 4, 8, 16):  # compiled before the first request
            self.detector.predict([np.zeros(size, np.uint8)] * count)

    async def __call__(self, request: Request) -> JSONResponse:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return JSONResponse({"error": f"the image has more than {LARGEST} bytes"}, 413)
        found = await self.judge(Given(bytes(body), "the image"))
        return JSONResponse(found, 422 if found["error"] else 200)

    @serve.batch(max_batch_size=AT_ONCE, batch_wait_timeout_s=0.005)
    async def judge(self, images: list) -> list[dict]:
        return await asyncio.to_thread(lambda: [*map(answer, self.detector.predict(images))])


def app(options: dict) -> serve.Application:
    replicas = int(options.get("replicas", 1))
    gpus = {"num_gpus": 1} if options.get("gpu") else {}
    return Judge.options(num_replicas=replicas, ray_actor_options=gpus).bind(options["workdir"])
