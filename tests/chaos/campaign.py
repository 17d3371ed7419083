"""What the parts of the chaos suite share: their command line, and work in several processes."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from world import World
from zygote import Zygote


@contextlib.contextmanager
def started(
    workers: int, prepare: Callable[[pathlib.Path], dict[str, str]] = lambda folder: {}
) -> Iterator[tuple[World, list[Zygote]]]:
    """Data and runs in a folder that is removed at the end, and processes to fork commands from.

    Args:
      workers: how many processes.
      prepare: folder -> variables for the environment of the processes.
    """
    with tempfile.TemporaryDirectory(prefix="jaxad-chaos-") as scratch:
        folder = pathlib.Path(scratch)
        environment = prepare(folder)
        zygotes = [Zygote(folder / f"zygote{n}", **environment) for n in range(workers)]
        world = World(folder)
        world.make_runs(zygotes[0])
        yield world, zygotes
        for zygote in zygotes:
            zygote.close()


def side_by_side(
    world: World, zygotes: list[Zygote], work: Callable[[Zygote, pathlib.Path], None]
) -> None:
    """Runs ``work`` once for every process, each in a folder of its own."""
    with ThreadPoolExecutor(len(zygotes)) as pool:
        places = [world.folder / f"try{number}" for number in range(len(zygotes))]
        for future in [pool.submit(work, *each) for each in zip(zygotes, places, strict=True)]:
            future.result()


def main(run: Callable[..., list[str]], about: str, *, count: int, tried: str) -> int:
    """Reads the command line of a part and runs it; 1 where it has something to complain of."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--count", type=int, default=count, help=f"of all {tried} together")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help=f"names of {tried}, separated by commas")
    parser.add_argument("--json", default="", help="file for the table, which is gone on with")
    arguments = parser.parse_args()
    chosen = (arguments.workers, arguments.only, arguments.json)
    return 1 if run(arguments.count, arguments.seed, *chosen) else 0
