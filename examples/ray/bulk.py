"""Judges any number of images by a run, on all nodes of a Ray cluster.

    python bulk.py --workdir=RUN --input=IMAGES --output=RESULTS

RUN and IMAGES have the same paths on every node; RUN has been evaluated or used before, so that its
thresholds are there. RESULTS becomes a folder of Parquet files (--csv: CSV), a row for each image.
"""

import argparse

import pyarrow as pa
import ray

import jaxad
from jaxad.data.datasets import find_images
from jaxad.data.given import named_file

AT_ONCE = 64
COLUMNS = pa.schema(
    {"path": pa.string(), "score": pa.float32(), "decision": pa.bool_(), "verdict": pa.string(),
     "threshold": pa.float64(), "regions": pa.int64(), "notes": pa.string(), "error": pa.string()}
)  # fmt: skip


class Judge:
    """An actor: loads the run once, then turns paths into rows."""

    def __init__(self, workdir: str):
        self.detector = jaxad.load_detector(workdir)

    def __call__(self, batch: dict) -> pa.Table:
        predictions = self.detector.predict([named_file(path) for path in batch["path"]])
        return pa.Table.from_pylist(predictions.table(), COLUMNS)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--workdir", "--input", "--output"):
        parser.add_argument(name, required=True)
    parser.add_argument("--csv", action="store_true", help="instead of Parquet")
    options = parser.parse_args(words)
    ray.init(ignore_reinit_error=True)
    images = [{"path": path} for path in find_images(options.input)]
    resources = ray.cluster_resources()
    gpus, nodes = int(resources.get("GPU", 0)), len(ray.nodes())
    judged = ray.data.from_items(
        images, override_num_blocks=-(-len(images) // AT_ONCE)
    ).map_batches(
        Judge,
        fn_constructor_args=(options.workdir,),
        batch_size=AT_ONCE,
        num_gpus=1 if gpus else None,
        num_cpus=None if gpus else max(1, int(resources["CPU"]) // nodes),
        compute=ray.data.ActorPoolStrategy(size=gpus or nodes),  # an actor for each device
    )
    # An actor that dies is started anew and its images are judged again, without end. The cores are
    # the actors'; what writes their rows asks for none.
    write = judged.write_csv if options.csv else judged.write_parquet
    write(options.output, min_rows_per_file=10_000, ray_remote_args={"num_cpus": 0})


if __name__ == "__main__":
    main()
