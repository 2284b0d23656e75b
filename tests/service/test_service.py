from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deepmtdr.errors import ClinicError
from deepmtdr.service.serve import Service
from deepmtdr.service.settings import ServiceSettings, WorkerSettings
from fake_service import (
    PATIENT_ID,
    PATIENT_NAME,
    make_examiner,
    make_failing,
    make_photograph,
    make_settings,
    send,
    wait_until,
)

Start = Callable[[ServiceSettings], Service]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Service] = []

    def begin(chosen: ServiceSettings) -> Service:
        started.append(Service(chosen, make_examiner).__enter__())
        return started[-1]

    yield begin
    for service in started:
        service.__exit__()


def ended(service: Service, number: int) -> bool:
    jobs = service.counts().jobs
    return jobs["done"] + jobs["dead"] == number


def reasons(service: Service) -> dict[int, str]:
    return {letter.job: letter.reason for letter in service.queue.dead_letters()}


def test_each_object_gets_its_results_or_a_reason_and_the_next_one_goes_on(tmp_path: Path, start: Start) -> None:
    service = start(make_settings(tmp_path / "service"))
    troubles = ("", "REFUSED", "CRASH", "BUG", "PRINTS")
    assert send(service.receiver.port, [make_photograph(patient=trouble) for trouble in troubles]) == [0] * 5
    wait_until(lambda: ended(service, 5))
    said = reasons(service)
    assert said[2] == "found no pixels, expected some"
    assert said[3] == "ended its process (exit code 7); 3 times"
    assert said[4].startswith("ValueError at fake_service.py:") and PATIENT_NAME not in said[4]
    assert sorted(path.name for path in service.queue.spool.results.iterdir()) == ["1", "5"]
    assert {path.name for path in service.queue.spool.results_folder(1).iterdir()} == {
        "result.dcm",
        "fhir.json",
        "report.json",
    }
    assert len(list(service.queue.spool.originals.iterdir())) == 5, "every original is kept"


def test_a_process_that_hangs_or_eats_is_ended_and_counted(tmp_path: Path, start: Start) -> None:
    workers = WorkerSettings(seconds=0.5, crashes=1, memory_mb=300.0)
    service = start(make_settings(tmp_path / "service", workers=workers))
    send(service.receiver.port, [make_photograph(patient="HANG"), make_photograph(patient="MEMORY"), make_photograph()])
    wait_until(lambda: ended(service, 3))
    assert reasons(service) == {1: "took more than 0.5 s; 1 times", 2: "took more than 300 MiB of memory; 1 times"}


def test_a_network_that_cannot_be_loaded_is_said_before_anything_listens(tmp_path: Path) -> None:
    service = Service(make_settings(tmp_path / "service"), make_failing)
    with pytest.raises(ClinicError, match=r"cannot be loaded: weights\.safetensors: damaged"):
        service.__enter__()
    assert service.receiver.port == 0
    with service.queue.spool.lock():
        pass


def test_two_services_do_not_work_in_one_folder(tmp_path: Path, start: Start) -> None:
    start(make_settings(tmp_path / "service"))
    with pytest.raises(ClinicError, match="another service"):
        start(make_settings(tmp_path / "service"))


def asked(service: Service, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{service.health.port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_and_metrics_say_how_things_stand(tmp_path: Path, start: Start) -> None:
    service = start(make_settings(tmp_path / "service"))
    send(service.receiver.port, [data := make_photograph(), data, make_photograph(patient="REFUSED")])
    wait_until(lambda: ended(service, 2))
    status, text = asked(service, "/health")
    said = json.loads(text)
    assert (status, said["status"], said["problems"], said["dead_letters"]) == (200, "ok", [], 1)
    status, text = asked(service, "/metrics")
    values: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        values |= {(sample.name, *sample.labels.values()): sample.value for sample in family.samples}
    assert status == 200
    assert values["deepmtdr_jobs", "done"] == values["deepmtdr_jobs", "dead"] == values["deepmtdr_up",] == 1
    assert (values["deepmtdr_door_total", "stored"], values["deepmtdr_door_total", "again"]) == (2, 1)
    assert values["deepmtdr_examination_seconds_count",] == 1
    assert asked(service, "/")[0] == 404


def test_health_is_503_with_the_reason_when_something_does_not_work(tmp_path: Path, start: Start) -> None:
    service = start(make_settings(tmp_path / "service"))
    service.settings = replace(service.settings, least_free_mb=1e12)
    service.receiver.stop()
    status, text = asked(service, "/health")
    assert (status, json.loads(text)["problems"]) == (503, ["the receiver does not listen", "the disk is full"])


class Server:
    """`deepmtdr serve` with the stand-in, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        folder.mkdir(exist_ok=True)
        ports = "[receiver]\nport = 0\n[health]\nport = 0\n"
        (folder / "serve.toml").write_text(f'folder = "service"\nleast_free_mb = 0\n{ports}[workers]\nseconds = 20\n')

    def start(self) -> Server:
        self.log.unlink(missing_ok=True)
        with self.log.open("w") as log:
            program = [
                sys.executable,
                str(Path(__file__).parents[1] / "fake_service.py"),
                str(self.folder / "serve.toml"),
            ]
            self.process = subprocess.Popen(program, stderr=log, stdout=log, env={**os.environ, "PYTHONPATH": SOURCE})
        wait_until(lambda: "health and metrics" in self.log.read_text(), 30)
        self.port = int(self.log.read_text().split(" port ")[1].split()[0])
        return self

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


SOURCE = str(Path(sys.modules["deepmtdr"].__file__ or "").parents[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path / "site")
    yield one
    if one.process.poll() is None:
        one.end(signal.SIGKILL)


def finished(server: Server, number: int) -> Callable[[], Any]:
    """Whether so many folders of results are there, read from outside."""
    return lambda: len([1 for path in (server.folder / "service" / "results").glob("[0-9]*")]) == number


def test_after_kill_9_and_a_restart_every_answered_object_has_its_results(server: Server) -> None:
    server.start()
    objects = [make_photograph(patient="SLOW") for _ in range(3)]
    assert send(server.port, objects) == [0, 0, 0]
    server.end(signal.SIGKILL)
    assert not finished(server, 3)()
    server.start()
    assert send(server.port, objects) == [0, 0, 0], "the same again"
    wait_until(finished(server, 3))
    assert server.end(signal.SIGTERM) == 0
    originals = server.folder / "service" / "originals"
    assert len(list(originals.iterdir())) == 3, "no unfinished files, none twice"


def test_sigterm_lets_the_object_under_way_be_finished_and_logs_hold_no_patient(server: Server) -> None:
    server.start()
    data = make_photograph(patient="SLOW", AccessionNumber=PATIENT_ID)
    assert send(server.port, [data, make_photograph(patient="PRINTS"), make_photograph(patient="BUG")]) == [0, 0, 0]
    wait_until(lambda: "job 3: received" in server.log.read_text())
    assert server.end(signal.SIGTERM) == 0
    text = server.log.read_text()
    assert "stopped" in text and "job 1: done" in text
    assert [word for word in (PATIENT_NAME, PATIENT_ID, data.SOPInstanceUID, "Traceback") if word in text] == []


def test_workers_do_not_outlive_a_service_that_is_killed(server: Server) -> None:
    server.start()
    send(server.port, [make_photograph(patient="HANG")])
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    every = [int(child) for task in tasks for child in task.read_text().split()]
    assert every
    server.end(signal.SIGKILL)
    wait_until(lambda: not any(_runs(child) for child in every))


def _runs(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
