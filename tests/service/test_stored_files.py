"""Retention: only files that every destination has confirmed are removed, by age, by size, or on request."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepmtdr.cli import app
from deepmtdr.service.queue import Queue
from deepmtdr.service.running_clock import RunningClock
from deepmtdr.service.settings import RetentionSettings
from deepmtdr.service.spool import object_digest
from deepmtdr.service.states import DeliveryState, PlannedDelivery

DAY = 86400.0


def receive(queue: Queue, content: bytes) -> int:
    digest = object_digest("1.2", "class", "syntax", content)
    return queue.receive(queue.spool.stage_original(content), content.hex(), digest).job


def add_job(queue: Queue, content: bytes, *states: DeliveryState) -> int:
    """A finished job with a result of 1000 bytes for each destination, and the state of each delivery."""
    receive(queue, content)
    job = queue.claim()
    assert job is not None
    part = queue.spool.create_staging_folder()
    (part / "a.dcm").write_bytes(bytes(1000))
    names = [f"d{job.id}-{number}" for number in range(len(states))]
    queue.complete(job, part, 1.0, [PlannedDelivery("a.dcm", name) for name in names])
    for name, state in zip(names, states, strict=True):
        (item,) = queue.due_deliveries(name, 1)
        queue.record_delivery(item, state)
    return job.id


def files(queue: Queue) -> tuple[int, set[int]]:
    """The number of originals, and the jobs that have results."""
    folders = {int(path.name) for path in queue.spool.results.iterdir()}
    return len(list(queue.spool.originals.iterdir())), folders


@pytest.fixture
def jobs(queue: Queue) -> dict[str, int]:
    sent, waiting, dead = DeliveryState.SENT, DeliveryState.WAITING, DeliveryState.DEAD
    return {
        "confirmed": add_job(queue, b"1", sent, sent),
        "one waits": add_job(queue, b"2", sent, waiting),
        "one is dead": add_job(queue, b"3", dead, sent),
        "no destination": add_job(queue, b"4"),
        "confirmed later": add_job(queue, b"5", sent),
    }


def test_nothing_is_removed_by_default(queue: Queue, jobs: dict[str, int]) -> None:
    queue.clock = RunningClock(1e9)
    assert queue.stored_files.apply(RetentionSettings()).jobs == 0
    assert files(queue) == (5, set(jobs.values()))


def test_confirmed_jobs_are_removed_after_their_days(queue: Queue, jobs: dict[str, int]) -> None:
    rules = RetentionSettings(days=30.0)
    assert queue.stored_files.apply(rules).jobs == 0
    queue.clock = RunningClock(31 * DAY)
    assert queue.stored_files.apply(rules) == (2, 2002)
    assert files(queue) == (3, {jobs["one waits"], jobs["one is dead"], jobs["no destination"]})
    assert queue.stored_files.apply(rules).jobs == 0 and queue.stored_files.cleared_jobs() == 2


def test_a_jump_of_the_clock_removes_nothing(
    queue: Queue, jobs: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 365 * DAY)
    assert queue.stored_files.apply(RetentionSettings(days=30.0)).jobs == 0 and files(queue)[0] == len(jobs)


def test_the_oldest_confirmed_jobs_are_removed_above_a_size(queue: Queue, jobs: dict[str, int]) -> None:
    assert queue.stored_files.size() == (5, 5000)
    assert queue.stored_files.apply(RetentionSettings(largest_gb=4.9e-6)) == (1, 1001)
    assert jobs["confirmed"] not in files(queue)[1] and queue.stored_files.size() == (4, 4000)
    assert queue.stored_files.apply(RetentionSettings(largest_gb=1e-9)).jobs == 1
    assert files(queue)[0] == 3, "the others are not confirmed"


def test_an_object_whose_files_were_removed_is_known_and_not_stored_again(queue: Queue, jobs: dict[str, int]) -> None:
    queue.stored_files.clear_older_than(0.0)
    assert receive(queue, b"1") == jobs["confirmed"]
    assert files(queue)[0] == 3 and queue.claim() is None


def test_only_jobs_older_than_the_days_are_removed_on_request(queue: Queue, jobs: dict[str, int]) -> None:
    assert queue.stored_files.clear_older_than(1.0).jobs == 0
    assert queue.stored_files.clear_older_than(0.0).jobs == 2 and len(jobs) == 5


def test_a_restart_removes_what_a_killed_service_had_begun_to_remove(
    queue: Queue, jobs: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(queue.spool, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            queue.stored_files.clear_older_than(0.0)
    assert files(queue)[0] == 5
    with closing(Queue(queue.spool.folder)) as later:
        later.recover()
        assert files(later) == (4, set(jobs.values()) - {jobs["confirmed"]})
        assert later.claim() is None, "the object is not queued again"


def test_the_size_of_files_of_an_earlier_release_is_measured_at_the_start(queue: Queue, jobs: dict[str, int]) -> None:
    with queue._transaction() as database:
        database.execute("UPDATE jobs SET original_bytes = 0, result_bytes = 0")
    queue.recover()
    assert queue.stored_files.size() == (len(jobs), 5000)


def test_space_for_the_results_of_unfinished_jobs_is_kept_free(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(queue, b"1", DeliveryState.SENT)
    queue.spool.min_free_bytes = 10_000
    monkeypatch.setattr(queue.spool, "free_bytes", lambda: 11_500)
    receive(queue, b"2")
    assert queue.backlog_bytes() == 1000
    receive(queue, b"3")
    with pytest.raises(OSError, match="found 0 MiB of free space"):
        receive(queue, b"4")
    assert queue.claim() is not None, "the workers use the space that was kept for them"


def test_no_job_begins_while_the_disk_is_low(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(queue, b"1")
    queue.spool.min_free_bytes = 10_000
    monkeypatch.setattr(queue.spool, "free_bytes", lambda: 9_999)
    assert queue.claim() is None
    monkeypatch.setattr(queue.spool, "free_bytes", lambda: 10_000)
    assert queue.claim() is not None


def test_the_command_removes_files_and_shows_their_size(queue: Queue, jobs: dict[str, int], tmp_path: Path) -> None:
    settings = tmp_path / "serve.toml"
    settings.write_text('folder = "service"\n')
    shown = CliRunner().invoke(app, ["queue", str(settings), "--clear", "--older-than", "1"])
    assert "jobs whose files were removed" in shown.stdout and files(queue)[0] == 5
    CliRunner().invoke(app, ["queue", str(settings), "--clear", "--older-than", "0"])
    assert files(queue) == (3, {jobs["one waits"], jobs["one is dead"], jobs["no destination"]})
    assert CliRunner().invoke(app, ["queue", str(settings), "--clear"]).exit_code == 2
    assert CliRunner().invoke(app, ["queue", str(settings), "--older-than", "1"]).exit_code == 2
