from __future__ import annotations

import errno
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from deepmtdr.errors import ServiceError
from deepmtdr.service.queue import Queue
from deepmtdr.service.queue_tables import queue_tables
from deepmtdr.service.spool import Spool, object_digest
from deepmtdr.service.states import DeliveryState, Job, JobState, PlannedDelivery
from deepmtdr.service.supersession import OtherObjectError
from fake_service import make_photograph, make_settings, to_bytes


def put(queue: Queue, uid: str = "1.2.3", content: bytes = b"eye") -> int:
    digest = object_digest(uid, "class", "syntax", content)
    return queue.receive(queue.spool.stage_original(content), uid, digest).job


def claimed(queue: Queue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def finish(queue: Queue, job: Job, *destinations: str) -> None:
    part = queue.spool.create_staging_folder()
    (part / "a.dcm").write_bytes(b"result")
    queue.complete(job, part, 2.0, [PlannedDelivery("a.dcm", name) for name in destinations])


def restarted(queue: Queue) -> Queue:
    """The queue as the next service opens it; the old one is not closed, as after kill -9."""
    again = Queue(queue.spool.folder)
    again.recover()
    return again


def test_received_objects_are_on_the_disk_and_claimed_oldest_first(queue: Queue) -> None:
    assert [put(queue, uid, uid.encode()) for uid in ("1.1", "1.2")] == [1, 2]
    job = claimed(queue)
    assert (job.id, job.source.read_bytes(), job.crashes) == (1, b"1.1", 0)
    assert claimed(queue).id == 2 and queue.claim() is None


def test_the_same_object_again_is_the_same_job_in_every_state(queue: Queue) -> None:
    put(queue)
    job = claimed(queue)
    assert put(queue) == 1
    finish(queue, job)
    assert put(queue) == 1 and queue.claim() is None
    assert len(list(queue.spool.originals.iterdir())) == 1


def test_the_same_uid_with_other_content_changes_nothing(queue: Queue) -> None:
    put(queue)
    with pytest.raises(OtherObjectError, match="job 1 has the same SOP Instance UID"):
        put(queue, content=b"other eye")
    assert queue.counts().jobs == dict.fromkeys(JobState, 0) | {JobState.RECEIVED: 1}


def test_a_dead_object_that_is_sent_again_is_queued_again(queue: Queue) -> None:
    put(queue)
    queue.mark_dead(claimed(queue), "cannot be answered")
    assert put(queue) == 1 and claimed(queue).crashes == 0


def test_a_corrected_object_of_the_same_uid_as_a_dead_one_is_queued(queue: Queue) -> None:
    put(queue)
    queue.mark_dead(claimed(queue), "damaged")
    put(queue, content=b"sound")
    assert claimed(queue).id == 2
    assert queue.retry_dead_letters() == 0, "the first one has been replaced"


def test_a_completed_job_has_results_and_waiting_deliveries(queue: Queue) -> None:
    put(queue)
    finish(queue, claimed(queue), "pacs", "archive")
    counts = queue.counts()
    assert (counts.jobs["done"], counts.examined, counts.seconds) == (1, 1, 2.0)
    assert counts.outbox == {("pacs", "waiting"): 1, ("archive", "waiting"): 1}
    (item,) = queue.due_deliveries("pacs", 10)
    assert item.path == queue.spool.results_folder(1) / "a.dcm" and item.path.read_bytes() == b"result"


def test_a_waiting_delivery_is_due_after_its_wait_and_not_before(queue: Queue) -> None:
    put(queue)
    finish(queue, claimed(queue), "pacs")
    queue.record_delivery(queue.due_deliveries("pacs", 1)[0], DeliveryState.WAITING, "busy", wait=3600.0)
    assert queue.due_deliveries("pacs", 1) == []
    with sqlite3.connect(queue.spool.folder / "queue.sqlite") as other:
        other.execute("UPDATE outbox SET due = 0")
    other.close()
    (item,) = queue.due_deliveries("pacs", 1)
    assert item.attempts == 1
    queue.record_delivery(item, DeliveryState.DEAD, "refused\nfor good")
    assert [(one.subject, one.reason) for one in queue.dead_letters()] == [("a.dcm to pacs", "refused for good")]
    assert queue.retry_dead_letters() == 1
    queue.record_delivery(queue.due_deliveries("pacs", 1)[0], DeliveryState.SENT)
    assert queue.counts().outbox == {("pacs", "sent"): 1} and queue.counts().oldest_waiting_seconds == 0


def test_three_crashes_make_a_dead_letter_and_other_jobs_are_claimed_first(queue: Queue) -> None:
    put(queue, "1.1", b"1"), put(queue, "1.2", b"2")
    assert not queue.record_crash(claimed(queue), "exit code 7", 3)
    assert claimed(queue).id == 2
    assert not queue.record_crash(claimed(queue), "exit code 7", 3)
    assert queue.record_crash(claimed(queue), "exit code 7", 3)
    assert queue.dead_letters()[0].reason == "exit code 7; 3 times"
    assert queue.retry_dead_letters() == 1 and claimed(queue).crashes == 0


def test_a_restart_queues_unfinished_jobs_again_without_counting_a_crash(queue: Queue) -> None:
    put(queue)
    claimed(queue)
    job = claimed(restarted(queue))
    assert (job.id, job.crashes) == (1, 0)


def test_a_restart_removes_unfinished_files_and_queues_objects_without_a_row(queue: Queue) -> None:
    data = make_photograph()
    (queue.spool.originals / ".ab.part").write_bytes(b"half")
    (queue.spool.create_staging_folder() / "half.dcm").write_bytes(b"half")
    (queue.spool.originals / "abc.dcm").write_bytes(to_bytes(data))
    (queue.spool.originals / "def.dcm").write_bytes(b"not even DICOM")
    again = restarted(queue)
    assert {path.name for path in queue.spool.originals.iterdir()} == {"abc.dcm", "def.dcm"}
    assert list(queue.spool.results.iterdir()) == []
    assert [claimed(again).source.name for _ in range(2)] == ["abc.dcm", "def.dcm"]
    with sqlite3.connect(queue.spool.folder / "queue.sqlite") as other:
        assert other.execute("SELECT uid FROM jobs").fetchall() == [(data.SOPInstanceUID,), ("def",)]
    other.close()


def test_an_object_without_a_row_whose_uid_another_job_has_is_a_dead_letter(queue: Queue) -> None:
    """Nobody was answered with success for it, and a person must decide which of the two is right."""
    data = make_photograph()
    put(queue, str(data.SOPInstanceUID))
    (queue.spool.originals / "abc.dcm").write_bytes(to_bytes(data))
    again = restarted(queue)
    (letter,) = again.dead_letters()
    assert (letter.job, letter.reason) == (2, "its SOP Instance UID is that of job 1, but its content differs")
    assert again.retry_dead_letters() == 0


def test_results_that_were_stored_before_a_crash_are_replaced(queue: Queue) -> None:
    put(queue)
    claimed(queue)
    half = queue.spool.create_staging_folder()
    (half / "old.dcm").touch()
    queue.spool.commit_results(half, 1)
    again = restarted(queue)
    finish(again, claimed(again))
    assert [path.name for path in queue.spool.results_folder(1).iterdir()] == ["a.dcm"]


def test_results_must_be_at_least_one_plain_file(queue: Queue) -> None:
    part = queue.spool.create_staging_folder()
    with pytest.raises(ServiceError, match="wrote 0 entries"):
        queue.spool.commit_results(part, 1)
    (part / "folder").mkdir()
    with pytest.raises(ServiceError, match="regular files"):
        queue.spool.commit_results(part, 1)


@pytest.mark.parametrize("step", ["write", "rename", "row"])
def test_a_full_disk_at_any_step_leaves_nothing(queue: Queue, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_row(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr(os, "fsync", full)
        elif step == "rename":
            patch.setattr(Path, "replace", full)
        else:
            patch.setattr(queue, "_insert", no_row)
        with pytest.raises((OSError, sqlite3.Error)):
            put(queue)
    assert list(queue.spool.originals.iterdir()) == [] and queue.claim() is None
    assert put(queue) == 1 and claimed(queue).source.read_bytes() == b"eye"


def test_an_object_is_synced_before_its_row_is_written(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    synced, insert = os.fsync, queue._insert

    def record_and_sync(number: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{number}").readlink()))
        synced(number)

    monkeypatch.setattr(os, "fsync", record_and_sync)
    monkeypatch.setattr(queue, "_insert", lambda *values: (steps.append("row"), insert(*values))[1])
    put(queue)
    kinds = ["row" if step == "row" else "folder" if step.endswith("originals") else "file" for step in steps]
    assert kinds == ["file", "folder", "row"]
    database = queue._database
    assert database.read("PRAGMA synchronous") == [(2,)] and database.read("PRAGMA journal_mode") == [("wal",)]


def test_only_the_owner_may_access_folders_and_files(queue: Queue) -> None:
    put(queue)
    finish(queue, claimed(queue))
    with queue.spool.lock():
        modes = {stat.S_IMODE(path.stat().st_mode) for path in queue.spool.folder.rglob("*") if path.is_file()}
        folders = [queue.spool.folder, *(path for path in queue.spool.folder.rglob("*") if path.is_dir())]
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_no_file_name_holds_a_uid(queue: Queue) -> None:
    put(queue, "1.2.840.4711")
    finish(queue, claimed(queue))
    assert [path for path in queue.spool.folder.rglob("*") if "4711" in path.name] == []


def test_a_folder_is_locked_by_one_service(queue: Queue) -> None:
    other = Spool(queue.spool.folder)
    with queue.spool.lock(), pytest.raises(ServiceError, match="another service"), other.lock():
        pass
    with other.lock():
        pass


def test_a_file_that_is_not_a_queue_or_is_of_a_later_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ServiceError, match=r"queue\.sqlite: found no queue"):
        Queue(tmp_path)
    (tmp_path / "later").mkdir()
    with sqlite3.connect(tmp_path / "later" / "queue.sqlite") as later:
        later.execute("PRAGMA user_version = 9")
    later.close()
    with pytest.raises(ServiceError, match="a later deepmtdr"):
        Queue(tmp_path / "later")


def test_the_tables_show_states_and_dead_letters_with_reasons(queue: Queue) -> None:
    put(queue, "1.1", b"1"), put(queue, "1.2", b"2")
    queue.mark_dead(claimed(queue), "no photograph")
    finish(queue, claimed(queue), "pacs")
    (states, files, letters), dead = queue_tables(make_settings(queue.spool.folder))
    assert files.rows[0] == ("originals", "0.0 MB")
    assert ("jobs", "done", "1") in states.rows and ("results to pacs", "waiting", "1") in states.rows
    assert dead == 1 and (letters.rows[0][0], letters.rows[0][3]) == ("1", "no photograph")
    _, dead = queue_tables(make_settings(queue.spool.folder), retry=True)
    assert dead == 0 and claimed(queue).id == 1


def test_a_folder_without_a_queue_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"no queue\.sqlite"):
        queue_tables(make_settings(tmp_path / "gone"))
    assert not (tmp_path / "gone").exists()


VERSION_1 = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('received', 'working', 'done', 'dead')),
    crashes INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    seconds REAL
);
CREATE INDEX jobs_by_state ON jobs (state, crashes, id);
CREATE INDEX jobs_by_uid ON jobs (uid);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id),
    file TEXT NOT NULL,
    destination TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    UNIQUE (job, file, destination)
);
CREATE INDEX outbox_by_state ON outbox (destination, state, due);
PRAGMA user_version = 1;
INSERT INTO jobs VALUES (1, '1.1', 'd1', 'received', 0, '', 100.0, NULL);
INSERT INTO jobs VALUES (2, '1.2', 'd2', 'working', 1, 'exit code 7', 200.0, NULL);
INSERT INTO jobs VALUES (3, '1.3', 'd3', 'done', 0, '', 300.0, 2.5);
INSERT INTO jobs VALUES (4, '1.4', 'd4', 'dead', 0, 'no photograph', 400.0, NULL);
INSERT INTO outbox VALUES (1, 3, 'sr.dcm', 'pacs', 'waiting', 2, 0.0, 'busy', 310.0);
INSERT INTO outbox VALUES (2, 3, 'report.dcm', 'pacs', 'sent', 1, 0.0, '', 310.0);
INSERT INTO outbox VALUES (3, 3, 'fhir.json', 'records', 'dead', 1, 0.0, 'HTTP 400', 310.0);
"""
"""A queue as deepmtdr 0.1 wrote it. Do not adapt this text to a new schema: queues of users look like this."""


def test_a_queue_of_an_earlier_release_can_be_opened_and_continued(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "queue.sqlite")) as old:
        old.executescript(VERSION_1)
    with closing(Queue(tmp_path)) as queue:
        queue.recover()
        counts = queue.counts()
        assert counts.jobs == dict.fromkeys(JobState, 0) | {JobState.RECEIVED: 2, JobState.DONE: 1, JobState.DEAD: 1}
        assert counts.outbox == {
            ("pacs", DeliveryState.WAITING): 1,
            ("pacs", DeliveryState.SENT): 1,
            ("records", DeliveryState.DEAD): 1,
        }
        assert (counts.examined, counts.seconds) == (1, 2.5)
        assert [(job.id, job.crashes) for job in (claimed(queue), claimed(queue))] == [(1, 0), (2, 1)]
        (item,) = queue.due_deliveries("pacs", 9)
        assert (item.path, item.attempts) == (tmp_path / "results" / "3" / "sr.dcm", 2)
        assert item.age < 60, "the time before the upgrade does not count"
        assert [tuple(letter) for letter in queue.dead_letters()] == [
            (3, "fhir.json to records", 310.0, "HTTP 400"),
            (4, "examination", 400.0, "no photograph"),
        ]


def test_the_states_are_exactly_those_that_the_database_allows(queue: Queue) -> None:
    choose = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name IN ('jobs', 'outbox') ORDER BY name"
    tables = queue._database.read(choose)
    for states, (sql,) in zip((JobState, DeliveryState), tables, strict=True):
        assert f"CHECK (state IN ({', '.join(repr(str(state)) for state in states)}))" in sql
