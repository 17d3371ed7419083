"""history.csv, the averages in it, and the events beside it."""

from __future__ import annotations

import errno
import pathlib
import time

import numpy as np
import pytest

from jaxad.run.errors import UserError
from jaxad.run.files import read_csv
from jaxad.training.events import Events
from jaxad.training.history import (
    History,
    check_finite,
    digest_of,
    read_history,
    summarise_steps,
)
from jaxad.training.step import StepMetrics


def step(loss=1.0, counts=(1, 0, 0), gain=2.0, **terms):
    values = {"loss": np.float32(loss), "gradient_norm": np.float32(0.5), **terms}
    return StepMetrics(values, {"codes": np.array(counts, np.float32)}, {"gain": np.float32(gain)})


def test_means_are_averaged_scalars_are_the_last_and_sums_are_counted():
    row = summarise_steps([step(1.0, (3, 1, 0), 5.0), step(2.0, (1, 3, 0), 7.0)], first_step=1)
    assert row["loss"] == 1.5 and row["gain"] == 7.0
    assert row["codes_used"] == 2 and row["codes_unused"] == 1
    # Two codes used equally often: a perplexity of two.
    assert row["codes_perplexity"] == pytest.approx(2.0)
    # Once is used.
    row = summarise_steps([step(counts=(5, 1, 0, 0))], first_step=1)
    assert row["codes_used"] == 2 and row["codes_unused"] == 2


def test_perplexity_against_its_definition():
    counts = np.random.default_rng(0).integers(0, 50, 40)
    row = summarise_steps([step(counts=counts)], first_step=1)
    share = counts[counts > 0] / counts.sum()
    assert row["codes_perplexity"] == pytest.approx(np.prod(share**-share), rel=1e-12)
    assert summarise_steps([step(counts=[0, 0])], first_step=1)["codes_perplexity"] == 1.0


def test_a_sum_that_is_one_number_is_averaged_over_the_steps():
    steps = [step()._replace(sums={"masked": np.float32(n)}) for n in (4, 8)]
    row = summarise_steps(steps, first_step=1)
    assert row["masked"] == 6.0 and "masked_used" not in row


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_term_is_named_before_what_follows_from_it(value):
    broken = step(value, kl=np.float32(0.0), nll=np.float32(value))
    with pytest.raises(UserError, match=r"step 12: 'nll' is (nan|inf|-inf) on training images"):
        summarise_steps([step(kl=0.0, nll=0.0), broken], first_step=11)
    with pytest.raises(UserError, match=r"step 3: 'loss' is"):
        check_finite({"gradient_norm": value, "kl": 0.0, "loss": value}, step=3)
    with pytest.raises(UserError, match=r"step 3: 'gradient_norm' is"):
        check_finite({"gradient_norm": value, "kl": 0.0, "loss": 1.0}, step=3)


ROWS = [
    {"step": 1, "loss": 0.25},
    {"step": 2, "loss": 1 / 3, "validation": 2.0},
    {"step": 3, "loss": 4.0},
]


def written(path: pathlib.Path, rows=ROWS) -> bytes:
    history = History(path, up_to_step=0)
    for row in rows:
        history.append(row)
    return path.read_bytes()


def test_rows_come_back_and_a_late_column_is_empty_before(tmp_path):
    text = written(tmp_path / "h.csv")
    assert text == b"step,loss,validation\n1,0.25,\n2,0.333333333,2\n3,4,\n"
    assert read_csv(tmp_path / "h.csv")[0] == {"step": "1", "loss": "0.25"}


@pytest.mark.parametrize("cut", range(0, 52, 3))
def test_a_line_that_a_kill_cut_off_is_dropped_and_written_again(tmp_path, cut):
    path = tmp_path / "h.csv"
    whole = written(path)
    path.write_bytes(whole[:cut])
    complete = max(0, whole[:cut].count(b"\n") - 1)
    assert len(read_csv(path)) == complete
    history = History(path, up_to_step=complete)
    for row in ROWS[complete:]:
        history.append(row)
    assert path.read_bytes() == whole


def test_rows_after_the_restored_step_are_dropped(tmp_path):
    whole = written(tmp_path / "h.csv")
    history = History(tmp_path / "h.csv", up_to_step=2)
    assert (tmp_path / "h.csv").read_bytes() == whole.rpartition(b"3,")[0]
    history.append(ROWS[2])
    assert (tmp_path / "h.csv").read_bytes() == whole


def test_a_new_run_starts_an_empty_history(tmp_path):
    path = tmp_path / "h.csv"
    History(path, up_to_step=0)
    assert not path.exists() and read_csv(path) == []
    written(path)
    History(path, up_to_step=0)
    assert path.read_bytes() == b""


def test_a_full_disk_is_a_sentence_and_rows_stay(tmp_path, monkeypatch):
    path = tmp_path / "h.csv"
    history = History(path, up_to_step=0)
    for row in ROWS[:2]:
        history.append(row)
    kept = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    for name, row in (("open", ROWS[2]), ("write_text", {**ROWS[2], "new": 1.0})):
        with monkeypatch.context() as patch:
            patch.setattr(pathlib.Path, name, full)
            with pytest.raises(UserError, match=r"h.csv could not be written: No space left"):
                history.append(row)
        assert path.read_bytes() == kept
    assert [p.name for p in tmp_path.iterdir()] == ["h.csv"]


def test_events_are_records_that_tensorboard_reads(tmp_path):
    """TensorFlow reads the file, with its checksums, and knows every field."""
    tf = pytest.importorskip("tensorflow")
    Events(tmp_path, first_step=40).write(300, {"loss": 0.5, "epoch": 3, "größe": -1e-30})
    (file,) = tmp_path.glob("events.out.tfevents.*")
    records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    version, start, row = (tf.compat.v1.Event.FromString(record) for record in records)
    assert version.file_version == "brain.Event:2"
    assert 0 <= time.time() - version.wall_time < 100
    # What an interrupted run wrote from here on is forgotten.
    assert start.step == 41 and start.session_log.status == tf.compat.v1.SessionLog.START
    assert row.step == 300
    found = {value.tag: value.simple_value for value in row.summary.value}
    assert found == {"loss": 0.5, "epoch": 3.0, "größe": np.float32(-1e-30)}


def test_every_report_is_in_the_events_at_once(tmp_path):
    events = Events(tmp_path, first_step=0)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    before = file.stat().st_size
    events.write(1, {"loss": 0.5})
    assert file.stat().st_size > before


def test_an_event_on_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    events = Events(tmp_path, first_step=0)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "open", full)
    with pytest.raises(UserError, match=r"events.* could not be written: No space left"):
        events.write(1, {"loss": 1.0})


DAMAGED = {
    "no number": (b"step,loss\n1,0.5\n2,x.5\n", r"row 2: 'loss' is 'x.5', no finite number"),
    "not finite": (b"step,loss\n1,nan\n", r"row 1: 'loss' is 'nan'"),
    "a step twice": (b"step,loss\n1,0.5\n1,0.5\n", r"row 2: the step is '1' after 1"),
    "half a step": (b"step,loss\n1.5,0.5\n", r"row 1: the step is '1.5'"),
    "no step": (b"stap,loss\n1,0.5\n", r"row 1: the step is ''"),
    "no text": (b"step,loss\n1,\xff\n", r"h.csv cannot be read"),
    "no table": (b"step,loss\n1,\x000\n", r"h.csv"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_history_is_a_sentence(damage, tmp_path):
    path = tmp_path / "h.csv"
    content, sentence = DAMAGED[damage]
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        History(path, up_to_step=2)
    assert path.read_bytes() == content


def test_no_flipped_bit_of_a_history_changes_what_is_read(tmp_path):
    path = tmp_path / "h.csv"
    whole = written(path)
    wanted = read_history(path)
    timing = {"steps": 2, "history": digest_of(wanted, up_to_step=2)}
    vouched = whole.index(b"\n3,")
    for place in range(8 * vouched):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert read_history(path, timing)[:2] == wanted[:2]
        except UserError as error:
            assert "h.csv" in str(error)
    # Rows after the step of the digest were written later.
    path.write_bytes(whole + b"4,1,\n")
    assert len(read_history(path, timing)) == 4
