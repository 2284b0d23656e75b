from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.service import ServiceProcess
from prometheus_client.parser import text_string_to_metric_families

import fake_service
from deepmtdr.errors import DicomError, ServiceError
from deepmtdr.service import health, worker_child
from deepmtdr.service.examiner import check_announced_uid
from deepmtdr.service.health import MAX_HTTP_CONNECTIONS
from deepmtdr.service.open_files import needed_files, reserve_open_files
from deepmtdr.service.serve import Service
from deepmtdr.service.settings import DicomNodeSettings, ServiceSettings, WorkerSettings
from deepmtdr.service.states import JobState, ReceiverEvent
from deepmtdr.service.worker_child import ReplyKind
from fake_service import (
    PATIENT_ID,
    PATIENT_NAME,
    SLOW_LOAD,
    SOURCES,
    Trouble,
    make_examiner,
    make_failing,
    make_photograph,
    make_settings,
    make_slow,
    send,
    to_bytes,
    wait_until,
)

Start = Callable[[ServiceSettings], Service]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a service in this process."""
    started: list[Service] = []

    def begin(chosen: ServiceSettings) -> Service:
        started.append(Service(chosen, make_examiner).__enter__())
        return started[-1]

    yield begin
    for service in started:
        service.__exit__()


def ended(service: Service, number: int) -> bool:
    """Whether so many jobs are done or dead."""
    jobs = service.counts().jobs
    return jobs[JobState.DONE] + jobs[JobState.DEAD] == number


def reasons(service: Service) -> dict[int, str]:
    return {letter.job: letter.reason for letter in service.queue.dead_letters()}


def test_each_object_gets_its_results_or_a_reason_and_the_next_one_is_examined(tmp_path: Path, start: Start) -> None:
    service = start(make_settings(tmp_path / "service", workers=WorkerSettings(seconds=20.0, crashes=2)))
    patients = ("", Trouble.REFUSED, Trouble.CRASH, Trouble.BUG, Trouble.PRINTS)
    assert send(service.receiver.port, [make_photograph(patient=patient) for patient in patients]) == [0] * 5
    wait_until(lambda: ended(service, 5))
    found = reasons(service)
    assert found[2] == "no pixel data, expected some"
    assert found[3] == "the worker process ended (exit code 7); 2 times"
    assert found[4].startswith("ValueError at fake_service.py:") and PATIENT_NAME not in found[4]
    assert sorted(path.name for path in service.queue.spool.results.iterdir()) == ["1", "5"]
    assert {path.name for path in service.queue.spool.results_folder(1).iterdir()} == {
        "result.dcm",
        "fhir.json",
        "report.json",
    }
    assert len(list(service.queue.spool.originals.iterdir())) == 5, "every original is kept"


def test_an_object_that_is_not_the_announced_one_or_was_removed_is_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(to_bytes(data := make_photograph()))
    check_announced_uid(tmp_path / "a.dcm", data.SOPInstanceUID)
    with pytest.raises(DicomError, match="found another SOP Instance UID than the sender announced"):
        check_announced_uid(tmp_path / "a.dcm", "1.2.3")
    reply = worker_child._examine(fake_service.examine, tmp_path / "gone.dcm", tmp_path, "1.2.3")
    assert (reply.kind, reply.reason) == (ReplyKind.REFUSED, "its file was removed from the folder of originals")


def test_a_process_that_takes_too_long_is_killed_with_the_processes_it_has_started(
    tmp_path: Path, start: Start
) -> None:
    service = start(make_settings(tmp_path / "service", workers=WorkerSettings(seconds=0.5, crashes=1)))
    send(service.receiver.port, [make_photograph(patient=Trouble.HANG)])
    wait_until(lambda: ended(service, 1))
    assert reasons(service) == {1: "the worker process took more than 0.5 s; 1 times"}
    child = service.queue.spool.folder / "child.pid"
    if child.exists():  # on a busy machine the time may be over before the process has started its child
        wait_until(lambda: not is_running(int(child.read_text())))


def test_a_process_that_takes_too_much_memory_is_killed(tmp_path: Path, start: Start) -> None:
    """The time limit is far away, so that a busy machine cannot reach it first."""
    workers = WorkerSettings(seconds=600.0, crashes=1, memory_mb=fake_service.EATEN_BYTES / 2**20)
    service = start(make_settings(tmp_path / "service", workers=workers))
    send(service.receiver.port, [make_photograph(patient=Trouble.MEMORY), make_photograph()])
    wait_until(lambda: ended(service, 2))
    assert reasons(service) == {1: "the worker process used more than 256 MiB of memory; 1 times"}


def test_a_network_that_cannot_be_loaded_is_an_error_before_the_service_listens(tmp_path: Path) -> None:
    pacs = DicomNodeSettings(ae_title="PACS", host="127.0.0.1")
    service = Service(make_settings(tmp_path / "service", dicom={"pacs": pacs}), make_failing)
    with pytest.raises(ServiceError, match=r"cannot load the network: weights\.safetensors: damaged"):
        service.__enter__()
    assert service.receiver.port == 0
    with service.queue.spool.lock():
        pass


def test_a_stop_while_the_network_loads_ends_the_service_at_once(tmp_path: Path) -> None:
    stop = threading.Event()
    service = Service(make_settings(tmp_path / "service", stop_seconds=60.0), make_slow, stop.is_set)
    threading.Timer(0.1, stop.set).start()
    begun = time.monotonic()
    with service:
        assert service.receiver.port == 0, "it does not listen"
    assert time.monotonic() - begun < 30
    assert not any(worker.alive for worker in service.workers)


def test_a_second_service_in_the_same_folder_is_refused(tmp_path: Path, start: Start) -> None:
    start(make_settings(tmp_path / "service"))
    with pytest.raises(ServiceError, match="another service"):
        start(make_settings(tmp_path / "service"))


def get(service: Service, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{service.health.port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_and_metrics_count_jobs_and_events(tmp_path: Path, start: Start) -> None:
    service = start(make_settings(tmp_path / "service"))
    send(service.receiver.port, [data := make_photograph(), data, make_photograph(patient=Trouble.REFUSED)])
    wait_until(lambda: ended(service, 2))
    status, text = get(service, "/health")
    answer = json.loads(text)
    assert (status, answer["status"], answer["problems"], answer["dead_letters"]) == (200, "ok", [], 1)
    assert answer["jobs"] == {"received": 0, "working": 0, "done": 1, "dead": 1, "superseded": 0}
    status, text = get(service, "/metrics")
    values: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith("."), "a help text is a sentence"
        values |= {(sample.name, *sample.labels.values()): sample.value for sample in family.samples}
    assert status == 200
    assert values["deepmtdr_jobs", "done"] == values["deepmtdr_jobs", "dead"] == values["deepmtdr_up",] == 1
    assert (values["deepmtdr_door_total", "stored"], values["deepmtdr_door_total", "again"]) == (2, 1)
    assert values["deepmtdr_examination_seconds_count",] == 1
    assert get(service, "/")[0] == 404


def test_health_is_503_with_the_problems_if_a_part_does_not_work(tmp_path: Path, start: Start) -> None:
    service = start(make_settings(tmp_path / "service"))
    service.settings = replace(service.settings, least_free_mb=1e12)
    service.receiver.stop()
    status, text = get(service, "/health")
    assert (status, json.loads(text)["problems"]) == (503, ["the receiver does not listen", "the disk is full"])


def test_health_is_degraded_with_the_warnings_while_the_service_works_worse(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = DicomNodeSettings(ae_title="PACS", host="127.0.0.1", port=1)
    service = start(make_settings(tmp_path / "service", dicom={"pacs": unreachable}))
    assert json.loads(get(service, "/health")[1])["status"] == "ok"
    send(service.receiver.port, [make_photograph()])
    wait_until(lambda: service.warnings() == ["pacs cannot be reached"])
    service.receiver.count(ReceiverEvent.CONNECTION_TOO_SLOW)
    monkeypatch.setattr(service.queue.spool, "backlog_bytes", 1 << 60)
    monkeypatch.setattr(service.housekeeping._detector, "_wall", lambda: time.time() + 8 * 24 * 3600)
    wait_until(lambda: service.clock_jumps() == 1)
    monkeypatch.setattr(service.queue.spool, "backlog_bytes", 1 << 60)
    status, text = get(service, "/health")
    answer = json.loads(text)
    assert (status, answer["status"], answer["problems"]) == (200, "degraded", [])
    assert [warning.partition(" ")[0] for warning in answer["warnings"]] == ["connections", "pacs", "objects", "the"]
    assert "set forward by 6912" in answer["warnings"][-1]
    assert "deepmtdr_warnings 4.0" in get(service, "/metrics")[1]


def test_connections_that_send_no_http_request_keep_nobody_out(tmp_path: Path, start: Start) -> None:
    service = start(make_settings(tmp_path / "service"))
    with contextlib.ExitStack() as stack:
        for number in range(100):
            source = (f"127.0.0.{2 + number % 9}", 0)
            hostile = socket.create_connection(("127.0.0.1", service.health.port), source_address=source)
            stack.enter_context(hostile).sendall(b"GET /hea")
        assert get(service, "/metrics")[0] == 200
        assert "HTTP connections were ended" in json.loads(get(service, "/health")[1])["warnings"][0]
        assert len(service.health.connections) <= 2 * MAX_HTTP_CONNECTIONS


def test_an_http_request_that_arrives_byte_by_byte_is_ended(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.3)
    service = start(make_settings(tmp_path / "service"))
    with socket.create_connection(("127.0.0.1", service.health.port)) as hostile, contextlib.suppress(ConnectionError):
        hostile.settimeout(0.02)
        for _ in range(3000):
            hostile.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                if hostile.recv(1) == b"":
                    return
        pytest.fail("the connection was not ended")


def test_the_size_of_the_files_is_in_the_metrics(tmp_path: Path, start: Start) -> None:
    service = start(make_settings(tmp_path / "service"))
    send(service.receiver.port, [make_photograph()])
    wait_until(lambda: ended(service, 1))
    text = get(service, "/metrics")[1]
    (original,) = service.queue.spool.originals.iterdir()
    assert f'deepmtdr_stored_bytes{{what="originals"}} {original.stat().st_size:.1f}' in text
    assert 'deepmtdr_stored_bytes{what="results"} ' in text and "deepmtdr_cleared_jobs_total 0.0" in text


def test_a_service_that_may_open_too_few_files_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(tmp_path / "service")
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 10_000))
    reserve_open_files(settings)
    assert limits == [(needed_files(settings), 10_000)] and needed_files(settings) < 1024
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(ServiceError, match=r"a limit of 100 open files, expected at least \d+ .* raise it"):
        reserve_open_files(settings)


@pytest.fixture
def process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[ServiceProcess]:
    """The fake service as its own process; the parameter is an option of its program."""
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    options = [request.param] if hasattr(request, "param") else []
    one = ServiceProcess(tmp_path, (sys.executable, fake_service.__file__, *options))
    yield one
    if one.process is not None and one.process.poll() is None:
        one.end(signal.SIGKILL)


def release(process: ServiceProcess) -> None:
    """Let the photographs of `Trouble.WAITS` be examined."""
    (process.service_folder / "release").touch()


def finished(process: ServiceProcess) -> int:
    """Number of result folders."""
    return len(list((process.service_folder / "results").glob("[0-9]*")))


def test_after_kill_9_and_a_restart_every_stored_object_gets_its_results(process: ServiceProcess) -> None:
    process.start()
    objects = [make_photograph(patient=Trouble.WAITS) for _ in range(3)]
    assert send(process.port, objects) == [0, 0, 0]
    process.end(signal.SIGKILL)
    assert finished(process) == 0
    release(process)
    process.start()
    assert send(process.port, objects) == [0, 0, 0], "the same objects again"
    wait_until(lambda: finished(process) == 3)
    assert process.end(signal.SIGTERM) == 0
    assert len(list((process.service_folder / "originals").iterdir())) == 3, "no unfinished files, none twice"


def test_sigterm_lets_the_running_examination_finish_and_the_log_holds_no_patient_data(process: ServiceProcess) -> None:
    process.start()
    data = make_photograph(patient=Trouble.BUG, AccessionNumber=PATIENT_ID)
    objects = [data, make_photograph(patient=Trouble.PRINTS), make_photograph(patient=Trouble.WAITS)]
    assert send(process.port, objects) == [0, 0, 0]
    wait_until((process.service_folder / "waiting").exists)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in process.log.read_text())
    release(process)
    assert process.process is not None and process.process.wait(30) == 0
    text = process.log.read_text()
    assert "stopped" in text and "job 3: done" in text
    assert [word for word in (PATIENT_NAME, PATIENT_ID, data.SOPInstanceUID, "Traceback") if word in text] == []


@pytest.mark.parametrize("process", [SLOW_LOAD], indirect=True)
def test_sigterm_ends_a_service_that_is_loading_its_network(process: ServiceProcess) -> None:
    process.launch()
    wait_until((process.service_folder / "serve.lock").exists)
    assert process.end(signal.SIGTERM) == 0
    text = process.log.read_text()
    assert "stopped" in text and "listens" not in text


def test_workers_end_with_a_service_that_is_killed(process: ServiceProcess) -> None:
    process.start()
    send(process.port, [make_photograph(patient=Trouble.HANG)])
    child = wait_until(lambda: number(process.service_folder / "child.pid"))
    assert process.process is not None
    tasks = Path(f"/proc/{process.process.pid}/task").glob("*/children")
    workers = [int(worker) for task in tasks for worker in task.read_text().split()]
    assert workers
    process.end(signal.SIGKILL)
    wait_until(lambda: not any(is_running(each) for each in (*workers, child)))


def number(path: Path) -> int:
    """The number in a file; 0 if it is not there yet."""
    return int(path.read_text() or 0) if path.exists() else 0


def is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
