"""Signs of life: written in one piece, of one start only, with the time of each rank apart."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from ranks import run_ranks
from toy_training import config, problem

from aqnet.training import heartbeat
from aqnet.training.heartbeat import Beat, Heart, read_beats, write_beat
from aqnet.training.loop import train
from aqnet.training.processes import open_fabric

BEAT = Beat(rank=3, world=4, host="n2", pid=7, attempt="ab12", phase="training", step=5, steps=9)


def test_what_is_written_is_read(tmp_path):
    for rank in (2, 0, 1):
        write_beat(tmp_path, replace(BEAT, rank=rank))
    assert [beat.rank for beat in read_beats(tmp_path)] == [0, 1, 2]
    assert read_beats(tmp_path)[2] == replace(BEAT, rank=2)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}
    assert read_beats(tmp_path / "none") == []


def test_files_of_an_earlier_start_and_torn_ones_are_passed_over(tmp_path):
    write_beat(tmp_path, replace(BEAT, rank=0, attempt="new", written=100.0))
    write_beat(tmp_path, replace(BEAT, rank=1, attempt="old", written=90.0))
    (tmp_path / "rank-00002.json").write_text('{"rank": 2, "wor')
    (tmp_path / "rank-00003.json").write_text(json.dumps({"rank": 3, "of": "another version"}))
    assert [beat.rank for beat in read_beats(tmp_path)] == [0]


def test_means_are_of_the_time_since_the_beat_before(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(heartbeat.time, "perf_counter", lambda: clock[0])
    heart = Heart(tmp_path, 0, 1, "ab")
    for step in (1, 2, 3):
        clock[0] += 2.0
        heart.wait()
        clock[0] += 0.5
        heart.count(8, own_s=2.0, wait_s=0.5)  # in the order of the loop
        heart.at(step, 10, 0)
    first = heart._current()
    assert (first.own_seconds_per_step, first.wait_seconds_per_step) == (2.0, 0.5)
    assert first.seconds_per_step == 2.5 and first.samples_s == pytest.approx(24 / 7.5)
    clock[0] += 20  # a judgement, which no step is charged for
    heart.at(4, 10, 0)
    heart.wait()
    clock[0] += 4
    second = heart._current()
    assert second.own_seconds_per_step == 2.0 and second.waiting_s == 4
    assert second.seconds_per_step == pytest.approx(29 / 3)


def test_nothing_is_written_without_a_folder_and_a_full_disk_stops_nothing(tmp_path):
    with Heart(None, 0, 1, "ab") as heart:
        heart.phase = "training"
    (tmp_path / "file").write_text("")
    with Heart(tmp_path / "file" / "beats", 0, 1, "ab"):  # no folder can be made there
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_training_beats_from_its_first_step_to_its_end(tmp_path):
    train(problem(), config(), tmp_path / "run", echo=lambda line: None, beats=tmp_path / "beats")
    (beat,) = read_beats(tmp_path / "beats")
    assert (beat.step, beat.steps, beat.epoch, beat.phase) == (15, 15, 3, "ended")
    assert beat.own_seconds_per_step > 0 and beat.wait_seconds_per_step == 0
    assert beat.samples_s > 0 and time.time() - beat.written < 60


def lagging(rank, folder):
    """Rank 1 takes 50 ms more for each batch than rank 0."""
    settings = config(batch_size=1, effective_batch=4, max_epochs=1, warmup_steps=0)
    ready = problem()
    ready.train.on_batch = lambda numbers: time.sleep(0.05 * rank)
    train(ready, settings, folder / "run", echo=lambda line: None, fabric=open_fabric(settings),
          beats=folder / "beats")  # fmt: skip


def test_the_rank_that_others_wait_for_is_told_by_its_own_time(tmp_path):
    assert [rank.code for rank in run_ranks(2, tmp_path, lagging)] == [0, 0]
    quick, slow = read_beats(tmp_path / "beats")
    assert slow.own_seconds_per_step - quick.own_seconds_per_step > 0.08  # two batches a step
    assert quick.wait_seconds_per_step - slow.wait_seconds_per_step > 0.05
    assert quick.attempt == slow.attempt
