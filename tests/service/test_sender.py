from __future__ import annotations

import base64
import json
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage
from pynetdicom import AE, evt

from deepmtdr.dicom import rejection, results
from deepmtdr.dicom.objects import ObjectKind
from deepmtdr.service.destinations import (
    DICOM_SUFFIX,
    FHIR_FILE,
    FHIR_REJECTION_FILE,
    MAX_RESPONSE_BYTES,
    CStoreDestination,
    FhirDestination,
    StowDestination,
    create_destinations,
)
from deepmtdr.service.pynetdicom_adapter import StoreEvent, configure_dicom_libraries
from deepmtdr.service.queue import Queue
from deepmtdr.service.sender import DeliveryResult, DestinationUnreachable, Sender, retry_delay
from deepmtdr.service.settings import DicomNodeSettings, RetrySettings, WebServerSettings
from deepmtdr.service.states import DeliveryState
from external_programs import program_path, requires_programs
from fake_destination import FakeDestination, add_results, run_sender, states
from fake_service import free_port, make_photograph, make_settings, to_bytes, wait_until

SENT, WAITING, DEAD = DeliveryState.SENT, DeliveryState.WAITING, DeliveryState.DEAD


def test_each_file_is_sent_once_and_a_refused_file_is_a_dead_letter(queue: Queue) -> None:
    add_results(queue, "pacs", 4)
    pacs = FakeDestination(SENT, DEAD, WAITING, SENT)
    stop = run_sender(queue, "pacs", pacs)
    wait_until(lambda: states(queue, "pacs") == {SENT: 3, DEAD: 1})
    stop()
    assert len(pacs.sent) == len(set(pacs.sent)) == 3
    assert [letter.reason for letter in queue.dead_letters()] == ["answered dead"]


def test_a_destination_that_is_down_is_tried_again_and_delays_no_other(queue: Queue) -> None:
    add_results(queue, "pacs"), add_results(queue, "archive")
    down = FakeDestination(*[DestinationUnreachable("is down")] * 3, ValueError("a bug"))
    stops = [run_sender(queue, "pacs", down), run_sender(queue, "archive", FakeDestination())]
    wait_until(lambda: states(queue, "archive") == {SENT: 3})
    wait_until(lambda: states(queue, "pacs") == {SENT: 3})
    for stop in stops:
        stop()
    assert down.calls >= 5


def test_a_file_that_breaks_the_connection_delays_no_other(queue: Queue) -> None:
    add_results(queue, "pacs", 2)
    stop = run_sender(
        queue,
        "pacs",
        FakeDestination(DestinationUnreachable("aborted")),
        RetrySettings(first_wait=0.2, longest_wait=0.2),
    )
    wait_until(lambda: states(queue, "pacs").get(SENT) == 1)
    assert queue.due_deliveries("pacs", 9) == [], "the first one waits longer"
    stop()


def test_a_delivery_that_is_too_old_is_a_dead_letter_with_the_last_reason(queue: Queue) -> None:
    add_results(queue, "pacs", 2)
    stop = run_sender(
        queue,
        "pacs",
        FakeDestination(WAITING, DestinationUnreachable("is down")),
        RetrySettings(first_wait=0.01, give_up_hours=1e-9),
    )
    wait_until(lambda: states(queue, "pacs") == {DEAD: 2})
    stop()
    assert [letter.reason for letter in queue.dead_letters()] == ["answered waiting", "is down"]


def test_waits_grow_up_to_the_longest_and_are_random() -> None:
    retry = RetrySettings(first_wait=5.0, factor=2.0, longest_wait=900.0)
    for failures, step in ((0, 5), (1, 10), (3, 40), (8, 900), (10_000, 900)):
        waits = [retry_delay(retry, failures) for _ in range(50)]
        assert step / 2 <= min(waits) < max(waits) <= step


class FakePacs:
    """A PACS that answers with `statuses`, then with success, and keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[Dataset] = []
        self.statuses: list[int] = []
        self.entity = AE("PACS")
        self.entity.add_supported_context(OphthalmicPhotography8BitImageStorage, ExplicitVRLittleEndian)
        self.entity.require_called_aet = True
        handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, self._store)]
        server = self.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self.port: int = server.server_address[1]

    def _store(self, event: StoreEvent) -> int:
        self.received.append(dcmread(BytesIO(event.encoded_dataset())))
        return self.statuses.pop(0) if self.statuses else 0


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    configure_dicom_libraries()
    started = FakePacs()
    yield started
    started.entity.shutdown()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.dcm" for n in range(3)]
    for path in paths:
        path.write_bytes(to_bytes(make_photograph()))
    return paths


def node(port: int, title: str = "PACS") -> CStoreDestination:
    return CStoreDestination(DicomNodeSettings(ae_title=title, host="127.0.0.1", port=port, seconds=5.0), "DEEPMTDR")


def test_a_pacs_receives_the_files_unchanged_and_each_status_is_heeded(pacs: FakePacs, files: list[Path]) -> None:
    assert [one.state for one in node(pacs.port).deliver(files)] == [SENT] * 3
    assert pacs.received == [dcmread(path) for path in files]
    pacs.statuses[:] = [0xA700, 0xA900, 0x0111]
    deliveries = list(node(pacs.port).deliver(files))
    assert [one.state for one in deliveries] == [WAITING, DEAD, SENT]
    assert deliveries[1].reason == "status 0xA900"
    pacs.statuses[:] = [0xB000, 0xC001, 0x0122]
    assert [one.state for one in node(pacs.port).deliver(files)] == [SENT, DEAD, DEAD]


def test_a_sop_class_that_a_pacs_does_not_accept_is_a_dead_letter_and_the_others_are_sent(
    pacs: FakePacs, files: list[Path]
) -> None:
    files[1].write_bytes(to_bytes(make_photograph(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")))
    deliveries = list(node(pacs.port).deliver(files))
    assert [one.state for one in deliveries] == [SENT, DEAD, SENT]
    assert "66.4" in deliveries[1].reason


def test_a_missing_file_delays_no_other(pacs: FakePacs, files: list[Path]) -> None:
    files[0].unlink()
    deliveries = list(node(pacs.port).deliver(files))
    assert deliveries[0] == DeliveryResult(DEAD, "the file is missing or damaged")
    assert [one.state for one in deliveries[1:]] == [SENT, SENT]


def test_a_missing_file_is_a_dead_letter_at_once_for_web_servers_too(web: FakeWebServer, files: list[Path]) -> None:
    files[0].unlink()
    deliveries = list(StowDestination(WebServerSettings(url=web.url)).deliver(files))
    assert deliveries[0] == DeliveryResult(DEAD, "the file is missing or damaged")
    assert [one.state for one in deliveries[1:]] == [SENT, SENT] and len(web.received) == 2
    (missing,) = FhirDestination(WebServerSettings(url=web.url)).deliver([files[0].with_name("fhir.json")])
    assert missing.state == DEAD


def test_a_pacs_that_rejects_or_is_down_is_unreachable(pacs: FakePacs, files: list[Path]) -> None:
    with pytest.raises(DestinationUnreachable, match="rejected the association"):
        list(node(pacs.port, "OTHER").deliver(files))
    pacs.entity.shutdown()
    with pytest.raises(DestinationUnreachable, match=r"does not answer|aborted"):
        list(node(pacs.port).deliver(files))


@requires_programs("storescp")
def test_dcmtk_can_receive_as_a_pacs(files: list[Path], tmp_path: Path) -> None:
    configure_dicom_libraries()
    (tmp_path / "pacs").mkdir()
    port = free_port()
    with subprocess.Popen(
        [program_path("storescp"), "-aet", "PACS", "-od", str(tmp_path / "pacs"), "+B", str(port)]
    ) as process:
        try:
            wait_until(lambda: _listens(port))
            assert [one.state for one in node(port).deliver(files)] == [SENT] * 3
        finally:
            process.terminate()
    got = {dcmread(path).SOPInstanceUID for path in (tmp_path / "pacs").iterdir()}
    assert got == {dcmread(path).SOPInstanceUID for path in files}


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


class Handler(BaseHTTPRequestHandler):
    """Answers with what a test has put on its server."""

    server: FakeWebServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        status, text = self.server.answers.pop(0) if self.server.answers else (200, "{}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


class FakeWebServer(ThreadingHTTPServer):
    """Answers with `answers` (status, text), then with 200 and "{}"; keeps path, headers and body of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/base"


@pytest.fixture
def web() -> Iterator[FakeWebServer]:
    server = FakeWebServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def failure(reason: int) -> str:
    return json.dumps({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}})


def test_stow_sends_each_object_in_its_own_request(web: FakeWebServer, files: list[Path]) -> None:
    web.answers[:] = [(200, "{}"), (202, "{}"), (200, "no JSON")]
    assert [one.state for one in StowDestination(WebServerSettings(url=web.url)).deliver(files)] == [SENT] * 3
    for (path, headers, body), file in zip(web.received, files, strict=True):
        assert path == "/base/studies"
        boundary = headers["Content-Type"].partition("boundary=")[2].encode()
        head, content, tail = body.split(b"--" + boundary)
        assert (head, tail) == (b"", b"--\r\n")
        assert content == b"\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ((409, failure(0x0122)), DEAD),
        ((202, failure(0xA900)), DEAD),
        ((409, failure(0xA700)), WAITING),
        ((409, failure(0x0111)), SENT),
        ((400, "no"), DEAD),
        ((415, "no"), DEAD),
        ((503, "busy"), WAITING),
        ((429, "busy"), WAITING),
        ((500, "down"), None),
        ((401, "who?"), None),
        ((404, "where?"), None),
        ((302, "elsewhere"), None),
    ],
)
def test_each_answer_of_a_web_server_is_heeded(
    web: FakeWebServer, files: list[Path], answer: tuple[int, str], state: DeliveryState | None
) -> None:
    web.answers[:] = [answer]
    deliveries = StowDestination(WebServerSettings(url=web.url)).deliver(files[:1])
    if state is None:
        with pytest.raises(DestinationUnreachable, match=f"HTTP {answer[0]}"):
            next(deliveries)
    else:
        assert next(deliveries).state == state
    deliveries.close()


def test_an_answer_without_end_is_not_kept_in_memory(files: list[Path], web: FakeWebServer) -> None:
    web.answers[:] = [(200, "x" * (MAX_RESPONSE_BYTES + 1))]
    with pytest.raises(DestinationUnreachable, match="answered with more than 1048576 bytes"):
        next(StowDestination(WebServerSettings(url=web.url)).deliver(files))


def test_an_answer_that_arrives_byte_by_byte_is_given_up(files: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip_answer, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DestinationUnreachable, match=r"took more than 0\.5 s to answer"):
            next(StowDestination(WebServerSettings(url=url, seconds=0.5)).deliver(files))


def drip_answer(server: socket.socket) -> None:
    """Answer a request with a body that never ends."""
    connection, _ = server.accept()
    with connection, suppress(OSError):
        connection.recv(1 << 20)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(100_000):
            connection.sendall(b"x")
            time.sleep(0.02)


def test_fhir_posts_the_bundle_with_its_secrets(
    web: FakeWebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fhir.json").write_text('{"resourceType": "Bundle"}')
    monkeypatch.setenv("FHIR_SECRET", "abc")
    for server in (
        WebServerSettings(url=web.url, token="env:FHIR_SECRET"),
        WebServerSettings(url=web.url, user="me", password="env:FHIR_SECRET"),
    ):
        assert [one.state for one in FhirDestination(server).deliver([tmp_path / "fhir.json"])] == [SENT]
    (path, first, body), (_, second, _) = web.received
    assert (path, body) == ("/base", b'{"resourceType": "Bundle"}')
    assert first["Content-Type"] == "application/fhir+json"
    assert first["Authorization"] == "Bearer abc"
    assert second["Authorization"] == "Basic " + base64.b64encode(b"me:abc").decode()


def test_a_web_server_that_does_not_answer_is_unreachable(files: list[Path]) -> None:
    with pytest.raises(DestinationUnreachable, match="does not answer"):
        next(StowDestination(WebServerSettings(url="http://127.0.0.1:1/x", seconds=1.0)).deliver(files))


def test_dicom_objects_go_to_dicom_destinations_and_the_bundle_to_fhir(tmp_path: Path) -> None:
    web, pacs = WebServerSettings(url="http://x/y"), DicomNodeSettings(ae_title="PACS", host="x")
    found = create_destinations(
        make_settings(tmp_path, dicom={"pacs": pacs}, dicomweb={"archive": web}, fhir={"records": web})
    )
    taken = {
        name: [file for file in ("a.dcm", "fhir.json", "fhir-rejection.json", "report.json") if one.accepts(file)]
        for name, one in found.items()
    }
    assert taken == {"pacs": ["a.dcm"], "archive": ["a.dcm"], "records": ["fhir.json", "fhir-rejection.json"]}
    assert (FHIR_FILE, FHIR_REJECTION_FILE) == (results.FHIR_FILE, rejection.FHIR_REJECTION_FILE)
    assert rejection.REJECTION_FILE.endswith(DICOM_SUFFIX) and all(
        kind.file_name.endswith(DICOM_SUFFIX) for kind in ObjectKind
    )


def test_a_missing_secret_is_waited_for(queue: Queue, web: FakeWebServer) -> None:
    add_results(queue, "records", 1)
    stop = run_sender(queue, "records", FhirDestination(WebServerSettings(url=web.url, token="env:NO_SUCH_SECRET")))
    wait_until(lambda: queue.due_deliveries("records", 1) == [])  # it has been tried, and waits
    stop()
    assert states(queue, "records") == {"waiting": 1} and web.received == []


def test_nothing_is_sent_twice_while_the_queue_cannot_store_what_was_sent(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_results(queue, "archive", 5)
    failures, record = 20, queue.record_delivery

    def full_at_first(*values: Any) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise sqlite3.OperationalError("database or disk is full")
        record(*values)

    monkeypatch.setattr(queue, "record_delivery", full_at_first)
    archive = FakeDestination()
    stop = run_sender(queue, "archive", archive)
    wait_until(lambda: states(queue, "archive") == {SENT: 5})
    stop()
    assert len(archive.sent) == len(set(archive.sent)) == 5


def test_waits_grow_while_the_queue_fails(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    waits: list[float] = []
    monkeypatch.setattr(queue, "due_deliveries", full)
    sender = Sender("archive", FakeDestination(), queue, RetrySettings(first_wait=1.0, longest_wait=8.0))

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 6:
            sender.stop()
        return sender.stop_requested.is_set()

    monkeypatch.setattr(sender.stop_requested, "wait", wait)
    sender.run()
    for step, seconds in zip((1, 2, 4, 8, 8, 8), waits, strict=True):
        assert step / 2 <= seconds <= step
