import io

import pytest

from jaxad.run import progress as module
from jaxad.run.progress import Progress, duration


def lines_of(total, *, always, updates, monkeypatch, seconds_each):
    clock = iter(range(10**6))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock) * seconds_each)
    stream = io.StringIO()
    with Progress("step", total, images_each=8, always=always, stream=stream) as progress:
        for done in updates:
            progress.update(done, "loss 1")
    return stream.getvalue().splitlines()


def test_fast_work_prints_its_first_and_last_line(monkeypatch):
    lines = lines_of(
        100, always=True, updates=range(1, 101), monkeypatch=monkeypatch, seconds_each=0
    )
    assert len(lines) == 2
    assert lines[0].startswith("step 1/100  loss 1") and lines[0].endswith("left")
    assert lines[1].startswith("step 100/100  loss 1") and "left" not in lines[1]


def test_short_work_says_nothing_unless_asked(monkeypatch):
    assert not lines_of(5, always=False, updates=range(6), monkeypatch=monkeypatch, seconds_each=0)


def test_long_work_prints_every_few_seconds_and_its_end(monkeypatch):
    # Two looks at the clock per update: an update takes two seconds.
    lines = lines_of(9, always=False, updates=range(1, 10), monkeypatch=monkeypatch, seconds_each=1)
    assert 2 <= len(lines) <= 5
    assert lines[-1].startswith("step 9/9")


def test_the_last_rate_is_that_of_all_the_time(monkeypatch):
    # Looks at the clock: one at the start, two at the first update, the next gives the rate.
    lines = lines_of(10, always=True, updates=[1, 10], monkeypatch=monkeypatch, seconds_each=2)
    assert lines[-1].endswith("13.3 images/s")  # 10 steps of 8 images in 6 seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3 * 3600 + 300, "3 h 05 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
