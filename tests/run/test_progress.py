import io

import pytest

from jaxad.run import progress as module
from jaxad.run.progress import Progress, duration, reporting_to


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


def test_the_rate_is_that_of_all_the_time_since_the_start(monkeypatch):
    """Not of the time since a batch came, whose pictures follow one another at once."""
    stream, now = io.StringIO(), 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    with Progress("image", 100, always=True, stream=stream) as progress:
        for done in range(1, 33):
            now = 10.0 * -(-done // 16) + 0.001 * done
            progress.update(done)
    assert stream.getvalue().splitlines()[-1].startswith("image 17/100  0.8 images/s  1:38 left")


def test_compilation_is_left_out_of_the_rate_of_training_until_its_end(monkeypatch):
    stream, now = io.StringIO(), 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    with Progress("step", 100, always=True, warm_up=True, stream=stream) as progress:
        for when, done in ((50.0, 20), (60.0, 40), (90.0, 100)):
            now = when
            progress.update(done)
    rates = [line.split("  ")[1] for line in stream.getvalue().splitlines()]
    assert rates == ["0.4 images/s", "2.0 images/s", "1.1 images/s"]


def test_a_listener_hears_every_update_and_ends_the_work(monkeypatch):
    heard = []
    with reporting_to(heard.append), Progress("step", 3, stream=io.StringIO()) as progress:
        progress.update(1)
        with reporting_to(None):
            progress.update(2, values={"loss": 0.5})
    Progress("step", 3, stream=io.StringIO()).update(3)
    assert [(one.label, one.done, one.total) for one in heard] == [("step", 1, 3), ("step", 2, 3)]
    assert [dict(one.values) for one in heard] == [{}, {"loss": 0.5}]
    assert 0 <= heard[0].seconds <= heard[1].seconds

    def refuse(update):
        raise KeyError(update.done)

    with pytest.raises(KeyError), reporting_to(refuse):
        Progress("step", 3, stream=io.StringIO()).update(1)
    Progress("step", 3, stream=io.StringIO()).update(1)


def test_the_last_rate_is_that_of_all_the_time(monkeypatch):
    # Looks at the clock: one at the start, two at the first update, the next gives the rate.
    lines = lines_of(10, always=True, updates=[1, 10], monkeypatch=monkeypatch, seconds_each=2)
    assert lines[-1].endswith("13.3 images/s")  # 10 steps of 8 images in 6 seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3 * 3600 + 300, "3 h 05 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
