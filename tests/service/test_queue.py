from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepmtdr.errors import ClinicError
from deepmtdr.service.queue import Job, Queue
from deepmtdr.service.queue_tables import queue_tables
from deepmtdr.service.spool import Spool, object_digest
from fake_service import make_photograph, make_settings, to_bytes


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    opened = Queue(tmp_path / "service")
    yield opened
    opened.close()


def put(queue: Queue, uid: str = "1.2.3", content: bytes = b"eye") -> int:
    return queue.receive(content, uid, object_digest(uid, "class", "syntax", content))[0]


def claimed(queue: Queue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def finish(queue: Queue, job: Job, *destinations: str) -> None:
    part = queue.spool.create_staging_folder()
    (part / "a.dcm").write_bytes(b"result")
    queue.complete(job, part, 2.0, [("a.dcm", name) for name in destinations])


def restarted(queue: Queue) -> Queue:
    """What the next service sees; the old one is not closed, as after kill -9."""
    again = Queue(queue.spool.folder)
    again.recover()
    return again


def test_what_is_received_is_on_the_disk_and_worked_on_oldest_first(queue: Queue) -> None:
    assert [put(queue, uid, uid.encode()) for uid in ("1.1", "1.2")] == [1, 2]
    job = claimed(queue)
    assert (job.id, job.source.read_bytes(), job.crashes) == (1, b"1.1", 0)
    assert claimed(queue).id == 2 and queue.claim() is None


def test_the_same_object_again_is_the_same_job_in_whatever_state(queue: Queue) -> None:
    put(queue)
    job = claimed(queue)
    assert put(queue) == 1
    finish(queue, job)
    assert put(queue) == 1 and queue.claim() is None
    assert len(list(queue.spool.originals.iterdir())) == 1


def test_the_same_uid_with_other_content_is_kept_as_a_dead_letter_that_no_retry_revives(queue: Queue) -> None:
    put(queue)
    assert put(queue, content=b"other eye") == 2
    (letter,) = queue.dead_letters()
    assert (letter.job, letter.reason) == (2, "has the SOP Instance UID of job 1 and other content")
    assert len(list(queue.spool.originals.iterdir())) == 2
    assert queue.retry_dead_letters() == 0 and queue.counts().jobs["dead"] == 1


def test_a_dead_object_that_comes_again_is_tried_once_more(queue: Queue) -> None:
    put(queue)
    queue.mark_dead(claimed(queue), "cannot be answered")
    assert put(queue) == 1 and claimed(queue).crashes == 0


def test_a_corrected_object_after_a_dead_one_of_its_uid_is_worked_on(queue: Queue) -> None:
    put(queue)
    queue.mark_dead(claimed(queue), "damaged")
    put(queue, content=b"sound")
    assert claimed(queue).id == 2
    assert queue.retry_dead_letters() == 0, "the first one has been replaced"


def test_done_is_results_and_outbox_at_once(queue: Queue) -> None:
    put(queue)
    finish(queue, claimed(queue), "pacs", "archive")
    counts = queue.counts()
    assert (counts.jobs["done"], counts.examined, counts.seconds) == (1, 1, 2.0)
    assert counts.outbox == {("pacs", "waiting"): 1, ("archive", "waiting"): 1}
    (item,) = queue.due_deliveries("pacs", 10)
    assert item.path == queue.spool.results_folder(1) / "a.dcm" and item.path.read_bytes() == b"result"


def test_a_delivery_is_tried_again_when_it_is_due_and_not_before(queue: Queue) -> None:
    put(queue)
    finish(queue, claimed(queue), "pacs")
    queue.record_delivery(queue.due_deliveries("pacs", 1)[0], "waiting", "busy", wait=3600.0)
    assert queue.due_deliveries("pacs", 1) == []
    with sqlite3.connect(queue.spool.folder / "queue.sqlite") as other:
        other.execute("UPDATE outbox SET due = 0")
    other.close()
    (item,) = queue.due_deliveries("pacs", 1)
    assert item.attempts == 1
    queue.record_delivery(item, "dead", "refused\nfor good")
    assert [(one.subject, one.reason) for one in queue.dead_letters()] == [("a.dcm to pacs", "refused for good")]
    assert queue.retry_dead_letters() == 1
    queue.record_delivery(queue.due_deliveries("pacs", 1)[0], "sent")
    assert queue.counts().outbox == {("pacs", "sent"): 1} and queue.counts().oldest_waiting_seconds == 0


def test_three_crashes_are_a_dead_letter_and_others_go_first_meanwhile(queue: Queue) -> None:
    put(queue, "1.1", b"1"), put(queue, "1.2", b"2")
    assert not queue.record_crash(claimed(queue), "exit code 7", 3)
    assert claimed(queue).id == 2
    assert not queue.record_crash(claimed(queue), "exit code 7", 3)
    assert queue.record_crash(claimed(queue), "exit code 7", 3)
    assert queue.dead_letters()[0].reason == "exit code 7; 3 times"
    assert queue.retry_dead_letters() == 1 and claimed(queue).crashes == 0


def test_a_restart_takes_up_what_was_worked_on_and_counts_nothing(queue: Queue) -> None:
    put(queue)
    claimed(queue)
    job = claimed(restarted(queue))
    assert (job.id, job.crashes) == (1, 0)


def test_a_restart_removes_what_is_unfinished_and_queues_whole_objects_without_a_row(queue: Queue) -> None:
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


def test_results_that_were_moved_before_a_crash_are_replaced(queue: Queue) -> None:
    put(queue)
    claimed(queue)
    half = queue.spool.create_staging_folder()
    (half / "old.dcm").touch()
    queue.spool.commit_results(half, 1)
    again = restarted(queue)
    finish(again, claimed(again))
    assert [path.name for path in queue.spool.results_folder(1).iterdir()] == ["a.dcm"]


def test_no_results_or_folders_among_them_are_refused(queue: Queue) -> None:
    part = queue.spool.create_staging_folder()
    with pytest.raises(ClinicError, match="0 results"):
        queue.spool.commit_results(part, 1)
    (part / "folder").mkdir()
    with pytest.raises(ClinicError, match="plain files"):
        queue.spool.commit_results(part, 1)


@pytest.mark.parametrize("step", ["write", "rename", "row"])
def test_a_full_disk_leaves_nothing_at_any_step(queue: Queue, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
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

    def noted(number: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{number}").readlink()))
        synced(number)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(queue, "_insert", lambda *values: (steps.append("row"), insert(*values))[1])
    put(queue)
    kinds = ["row" if step == "row" else "folder" if step.endswith("originals") else "file" for step in steps]
    assert kinds == ["file", "folder", "row"]
    assert queue._read("PRAGMA synchronous") == [(2,)] and queue._read("PRAGMA journal_mode") == [("wal",)]


def test_folders_and_files_are_their_owners_alone(queue: Queue) -> None:
    put(queue)
    finish(queue, claimed(queue))
    with queue.spool.lock():
        modes = {stat.S_IMODE(path.stat().st_mode) for path in queue.spool.folder.rglob("*") if path.is_file()}
        folders = [queue.spool.folder, *(path for path in queue.spool.folder.rglob("*") if path.is_dir())]
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_no_name_on_the_disk_holds_a_uid(queue: Queue) -> None:
    put(queue, "1.2.840.4711")
    finish(queue, claimed(queue))
    assert [path for path in queue.spool.folder.rglob("*") if "4711" in path.name] == []


def test_one_service_alone_works_in_a_folder(queue: Queue) -> None:
    other = Spool(queue.spool.folder)
    with queue.spool.lock(), pytest.raises(ClinicError, match="another service"), other.lock():
        pass
    with other.lock():
        pass


def test_a_file_that_is_no_queue_or_a_later_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ClinicError, match=r"queue\.sqlite: no queue"):
        Queue(tmp_path)
    (tmp_path / "later").mkdir()
    with sqlite3.connect(tmp_path / "later" / "queue.sqlite") as later:
        later.execute("PRAGMA user_version = 9")
    later.close()
    with pytest.raises(ClinicError, match="later version"):
        Queue(tmp_path / "later")


def test_the_table_shows_states_and_dead_letters_with_reasons(queue: Queue) -> None:
    put(queue, "1.1", b"1"), put(queue, "1.2", b"2")
    queue.mark_dead(claimed(queue), "no photograph")
    finish(queue, claimed(queue), "pacs")
    (states, letters), dead = queue_tables(make_settings(queue.spool.folder))
    assert ("jobs", "done", "1") in states.rows and ("results to pacs", "waiting", "1") in states.rows
    assert dead == 1 and (letters.rows[0][0], letters.rows[0][3]) == ("1", "no photograph")
    _, dead = queue_tables(make_settings(queue.spool.folder), retry=True)
    assert dead == 0 and claimed(queue).id == 1


def test_a_folder_without_a_queue_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ClinicError, match="no queue"):
        queue_tables(make_settings(tmp_path / "gone"))
    assert not (tmp_path / "gone").exists()
