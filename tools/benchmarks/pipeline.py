"""Times the input pipelines: batches from the memory-mapped cache, from files, from shards.

    python tools/benchmarks/pipeline.py --root=bottle --output=docs/results/pipeline_cpu.json

Rows, each with both pipelines (`memory`, and `tf` where TensorFlow is installed):

    mapped      decoded and resized once, into a file that is mapped into memory
    files       data.stream: each image is decoded and resized whenever its turn comes
    shards      data.stream on what `jaxad data prepare --shards` wrote, at the size of the config

`prepare` is the time of preparing all training images, in seconds: what `mapped` and `shards` pay
before the first batch. Training needs no more images per second than its steps take; whatever a row
gives beyond that is idle.

Each row is a process of its own that runs alone; rows take turns. Figures are medians over turns.
`peak MiB` is what the process held at most, beside what it held before its first batch: for
`mapped` this counts pages of the file, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time

import worker

SOURCES = ("mapped", "files", "shards")
CHANNELS = 3


def open_images(source: str, size: int, options: argparse.Namespace):
    """What the pipelines of a row take their rows from, and the seconds of preparing it."""
    from jaxad.data.cache import prepare_images
    from jaxad.data.datasets import read_table
    from jaxad.data.published.tfds_builders import prepare_shards
    from jaxad.data.streamed import StreamedImages

    place = options.folder / f"{source}{size}"
    as_wished = {"image_size": (size, size), "channels": CHANNELS}
    of_data = {"category": options.category}
    start = time.perf_counter()
    root, name = options.root, options.name
    if source == "shards":
        root = prepare_shards(root, name, **of_data, **as_wished, data_dir=place)
        name = "shards"
    samples = read_table(root, name=name, **(of_data if source != "shards" else {})).train_good()
    if source == "mapped":
        images = prepare_images(samples, **as_wished, memory_limit_mb=0, cache_dir=place)
    else:
        images = StreamedImages(samples, **as_wished)
    return images, time.perf_counter() - start


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(row: str, options: argparse.Namespace) -> None:
    """The child: times one row."""
    # Before any library counts the cores for its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not disturb the answer
    source, pipeline, size = row.split(",")
    images, prepared = open_images(source, int(size), options)
    if pipeline == "prepare":
        print(json.dumps({"prepare": prepared, "training_images": len(images)}), file=answers)
        return
    from jaxad.data.pipeline import training_batches
    from jaxad.data.tensorflow import import_tensorflow

    if pipeline == "tf":
        import_tensorflow()
    before = peak_mib()
    batches = training_batches(images, batch_size=options.batch, seed=0, pipeline=pipeline)
    for _ in itertools.islice(batches, 4):
        pass  # threads are started, files are open
    count = max(1, options.images // options.batch)
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in itertools.islice(batches, count):
        pass
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    batches.close()
    timed = count * options.batch
    answer = {
        "images_per_second": timed / seconds,
        "cpu_ms_per_image": 1000 * cpu / timed,
        "peak_mib": peak_mib() - before,
    }
    print(json.dumps(answer), file=answers)


def measure(options: argparse.Namespace) -> dict:
    from jaxad.run.environment import processor_name

    installed = {name: importlib.util.find_spec(name) for name in ("tensorflow", "array_record")}
    missing = [name for name, found in installed.items() if found is None]
    if missing:
        print(f"{' and '.join(missing)} not installed: the rows that need it are left out")
    sources = [s for s in SOURCES if s != "shards" or not missing]
    pipelines = ["memory", "tf"] if installed["tensorflow"] else ["memory"]
    report = {
        "device": processor_name(),
        "cores": options.cores,
        "batch": options.batch,
        "images": options.images,
        "turns": options.turns,
        "data": f"{pathlib.Path(options.root).name} {options.category}".strip(),
    }
    rows = []
    for size in map(int, options.sizes.split(",")):
        ask = lambda row: json.loads(worker.answer_of(row, options))
        prepared = {s: ask(f"{s},prepare,{size}") for s in sources}
        report["training_images"] = prepared[sources[0]]["training_images"]
        found: dict[tuple[str, str], list[dict]] = {}
        for _ in range(options.turns):
            for key in itertools.product(sources, pipelines):
                answer = ask(",".join((*key, str(size))))
                found.setdefault(key, []).append(answer)
                print(f"{size} {' '.join(key)}: {answer}", file=sys.stderr)
        for (source, pipeline), answers in found.items():
            row = {"size": size, "source": source, "pipeline": pipeline}
            row["prepare"] = 0.0 if source == "files" else prepared[source]["prepare"]
            row |= {k: statistics.median(a[k] for a in answers) for k in answers[0]}
            rows.append(row)
    return report | {"rows": rows}


def table(report: dict) -> str:
    lines = [
        f"{report['data']}, {report['training_images']} training images, batches of "
        f"{report['batch']}, {report['cores']} cores of {report['device']}",
        f"{'size':>5} {'source':8}{'pipeline':10}{'images/s':>10}{'CPU ms/image':>14}"
        f"{'prepare s':>11}{'peak MiB':>10}",
    ]
    for row in report["rows"]:
        lines.append(
            f"{row['size']:>5} {row['source']:8}{row['pipeline']:10}"
            f"{row['images_per_second']:10.0f}{row['cpu_ms_per_image']:14.2f}"
            f"{row['prepare']:11.1f}{row['peak_mib']:10.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="as data.root")
    parser.add_argument("--name", default="auto", help="as data.name")
    parser.add_argument("--category", default="", help="as data.category")
    parser.add_argument("--sizes", default="128,256", help="sides in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=800, help="timed in each process")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores of each row")
    worker.add_arguments(parser)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = pathlib.Path(folder)
        report = measure(options)
    print(table(report))
    worker.write_report(report, options.output)


if __name__ == "__main__":
    main()
