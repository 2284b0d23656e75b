"""An object with the SOP Instance UID of another one: the same photograph, a refused one, or a corrected one."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import RLELossless

from deepmtdr.dicom.identity import read_identity
from deepmtdr.errors import DicomError
from deepmtdr.service.changed_objects import ChangedObjectError, receive_object
from deepmtdr.service.queue import Queue
from deepmtdr.service.receiver import StoreServer, StoreStatus
from deepmtdr.service.settings import ReceiverSettings, RetentionSettings
from deepmtdr.service.spool import object_digest
from deepmtdr.service.states import (
    ChangedObjectPolicy,
    DeliveryState,
    Job,
    JobState,
    PlannedDelivery,
    Receipt,
    ReceiverEvent,
)
from deepmtdr.service.withdrawal import Withdrawal
from dicom_objects import make_photograph
from fake_service import send
from fundus import draw_fundus

REFUSE, SUPERSEDE = ChangedObjectPolicy.REFUSE, ChangedObjectPolicy.SUPERSEDE
OTHER_PIXELS = draw_fundus(300, 320, (160, 150), 130)


def encoded(data: FileDataset) -> bytes:
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def receive(queue: Queue, policy: ChangedObjectPolicy = REFUSE, content: bytes = b"", **tags: Any) -> Receipt:
    """Receive the photograph 2.25.123, with other attributes or as other bytes."""
    content = content or encoded(make_photograph(**tags))
    staged = queue.spool.stage_original(content)
    return receive_object(queue, policy, staged, "2.25.123", object_digest("2.25.123", "class", "syntax", content))


def claim(queue: Queue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def examine(queue: Queue, *destinations: str) -> Job:
    """Examine the next job: two results for each destination."""
    job = claim(queue)
    part = queue.spool.create_staging_folder()
    planned = []
    for name in ("sr.dcm", "report.dcm"):
        (part / name).write_bytes(b"result")
        planned += [PlannedDelivery(name, destination) for destination in destinations]
    queue.complete(job, part, 1.0, planned, read_identity(job.source).to_text())
    return job


def reject(folder: Path) -> list[str]:
    """Reject the results of a folder as `dicom.rejection` does, without DICOM."""
    if not (folder / "sr.dcm").is_file():
        raise DicomError("found no DICOM results")
    (folder / "rejection.dcm").write_bytes(b"rejected")
    return ["rejection.dcm"]


def to_all(files: Iterable[str]) -> list[PlannedDelivery]:
    return [PlannedDelivery(file, name) for file in files for name in ("pacs", "archive", "new")]


def outbox(queue: Queue) -> list[tuple[int, str, str, str]]:
    return queue._database.read("SELECT job, file, destination, state FROM outbox ORDER BY id")


def compressed() -> bytes:
    data = make_photograph()
    data.compress(RLELossless, generate_instance_uid=False)
    return encoded(data)


@pytest.mark.parametrize("policy", [REFUSE, SUPERSEDE])
@pytest.mark.parametrize("examined", [False, True])
def test_the_same_pixels_in_another_transfer_syntax_are_the_same_job(
    queue: Queue, policy: ChangedObjectPolicy, examined: bool
) -> None:
    receive(queue)
    if examined:
        examine(queue)
    assert receive(queue, policy, compressed()) == Receipt(1, is_new=False)
    assert sum(queue.counts().jobs.values()) == len(list(queue.spool.originals.iterdir())) == 1


def test_the_photograph_is_known_after_its_files_were_removed(queue: Queue) -> None:
    receive(queue)
    job = examine(queue)
    job.source.unlink()
    assert receive(queue, REFUSE, compressed()) == Receipt(1, is_new=False)
    with pytest.raises(ChangedObjectError, match="other pixels"):
        receive(queue, pixels=OTHER_PIXELS)


@pytest.mark.parametrize("examined", [False, True])
@pytest.mark.parametrize(
    ("tags", "different"), [({"PatientID": "P-18"}, "patient"), ({"pixels": OTHER_PIXELS}, "pixels")]
)
def test_a_changed_object_is_refused_and_nothing_is_stored(
    queue: Queue, tags: dict[str, Any], different: str, examined: bool
) -> None:
    receive(queue)
    if examined:
        examine(queue)
    for _ in range(2):
        with pytest.raises(ChangedObjectError, match=f"job 1 has the same SOP Instance UID with other {different}"):
            receive(queue, **tags)
    assert len(list(queue.spool.originals.iterdir())) == 1 and sum(queue.counts().jobs.values()) == 1


def test_a_corrected_object_supersedes_a_job_that_is_not_examined(queue: Queue) -> None:
    receive(queue)
    working = claim(queue)
    assert receive(queue, SUPERSEDE, PatientID="P-18") == Receipt(2, is_new=True, supersedes=1)
    part = queue.spool.create_staging_folder()
    (part / "sr.dcm").write_bytes(b"of the wrong patient")
    queue.complete(working, part, 1.0, [PlannedDelivery("sr.dcm", "pacs")])
    queue.mark_dead(working, "a late failure")
    assert outbox(queue) == [] and list(queue.spool.results.iterdir()) == []
    assert claim(queue).id == 2 and queue.counts().jobs[JobState.SUPERSEDED] == 1


def test_results_of_a_superseded_job_are_rejected_wherever_they_went(queue: Queue) -> None:
    receive(queue)
    examine(queue, "pacs", "archive")
    queue.record_delivery(queue.due_deliveries("pacs", 1)[0], DeliveryState.SENT)
    receive(queue, SUPERSEDE, PatientID="P-18")
    assert [job.successor for job in queue.supersession.pending()] == [2]
    Withdrawal(queue, to_all, reject).withdraw_all()
    assert queue.supersession.pending() == []
    assert outbox(queue) == [
        (1, "sr.dcm", "pacs", "sent"),
        (1, "rejection.dcm", "pacs", "waiting"),
        (1, "rejection.dcm", "archive", "waiting"),
    ]
    assert examine(queue, "pacs").id == 2
    (rejection, *results) = queue.due_deliveries("pacs", 9)
    assert rejection.path.read_bytes() == b"rejected" and [one.job for one in results] == [2, 2]
    counts = queue.counts().jobs
    assert (counts[JobState.SUPERSEDED], counts[JobState.DONE], counts[JobState.DEAD]) == (1, 1, 0)


def test_a_restart_before_the_withdrawal_does_it_once(queue: Queue) -> None:
    receive(queue)
    examine(queue, "pacs")
    receive(queue, SUPERSEDE, PatientID="P-18")
    again = Queue(queue.spool.folder)
    again.recover()
    reject(again.spool.results_folder(1))  # written before the service was killed
    for _ in range(2):
        Withdrawal(again, to_all, reject).withdraw_all()
    assert outbox(again) == [(1, "rejection.dcm", "pacs", "waiting")]
    again.close()


def test_missing_results_cannot_be_rejected_and_are_a_dead_letter(queue: Queue) -> None:
    receive(queue)
    examine(queue, "pacs")
    (queue.spool.results_folder(1) / "sr.dcm").unlink()
    receive(queue, SUPERSEDE, PatientID="P-18")
    Withdrawal(queue, to_all, reject).withdraw_all()
    (letter,) = queue.dead_letters()
    assert letter.subject == "rejection to pacs"
    assert "the photograph was corrected (job 2): reject the earlier results by hand" in letter.reason


def test_a_superseded_object_that_is_received_again_is_refused(queue: Queue) -> None:
    """A camera that repeats the wrong object must not undo the correction."""
    receive(queue)
    receive(queue, SUPERSEDE, PatientID="P-18")
    with pytest.raises(ChangedObjectError, match="job 2"):
        receive(queue, SUPERSEDE)
    assert receive(queue, SUPERSEDE, PatientID="P-18") == Receipt(2, is_new=False)
    assert receive(queue, SUPERSEDE, PatientID="P-19") == Receipt(3, is_new=True, supersedes=2)


@pytest.mark.parametrize("policy", [REFUSE, SUPERSEDE])
def test_an_object_that_cannot_be_read_never_supersedes_another_one(queue: Queue, policy: ChangedObjectPolicy) -> None:
    receive(queue)
    examine(queue)
    for content in (b"no DICOM", encoded(make_photograph())[:9000]):
        with pytest.raises(ChangedObjectError, match="other content"):
            receive(queue, policy, content)


def test_a_dead_corrected_object_can_be_tried_again(queue: Queue) -> None:
    receive(queue)
    receive(queue, SUPERSEDE, PatientID="P-18")
    queue.mark_dead(claim(queue), "crashed")
    assert queue.retry_dead_letters() == 1
    queue.mark_dead(claim(queue), "crashed")
    assert receive(queue, SUPERSEDE, PatientID="P-18") == Receipt(2, is_new=False) and claim(queue).id == 2


def test_files_of_a_superseded_job_are_kept_until_its_rejection_is_confirmed(queue: Queue) -> None:
    receive(queue)
    examine(queue, "pacs")
    for item in queue.due_deliveries("pacs", 9):
        queue.record_delivery(item, DeliveryState.SENT)
    receive(queue, SUPERSEDE, PatientID="P-18")
    rules = RetentionSettings(largest_gb=1e-9)
    assert queue.stored_files.apply(rules).jobs == 0
    Withdrawal(queue, to_all, reject).withdraw_all()
    assert queue.stored_files.apply(rules).jobs == 0
    queue.record_delivery(queue.due_deliveries("pacs", 1)[0], DeliveryState.SENT)
    assert queue.stored_files.apply(rules).jobs == 1


def test_the_sender_is_told_what_differs_and_the_event_is_counted(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = StoreServer(ReceiverSettings(port=0, idle_seconds=5.0), queue, 0)
    server.start()
    try:
        changed = make_photograph(PatientID="P-18", ImageLaterality="L")
        assert send(server.port, [make_photograph(), changed]) == [0, StoreStatus.CHANGED_OBJECT]
        assert server.counts[ReceiverEvent.OBJECT_CHANGED] == 1
        assert any("another photograph has the same SOP Instance UID" in warning for warning in server.warnings())
    finally:
        server.stop()
    assert "an object was refused: job 1 has the same UID with other patient, eye" in caplog.text
    assert "2.25.123" not in caplog.text and "P-18" not in caplog.text
