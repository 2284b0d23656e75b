from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage
from pynetdicom import AE, evt

from deepmtdr.service.destinations import CStoreDestination, FhirDestination, StowDestination, create_destinations
from deepmtdr.service.queue import Queue
from deepmtdr.service.receiver import configure_dicom_libraries
from deepmtdr.service.sender import DeliveryResult, Destination, DestinationUnreachable, Sender, retry_delay
from deepmtdr.service.settings import DicomNodeSettings, RetrySettings, WebServerSettings
from external_programs import program_path, requires_programs
from fake_service import make_photograph, make_settings, to_bytes, wait_until

FAST = RetrySettings(first_wait=0.02, longest_wait=0.05)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    opened = Queue(tmp_path / "service")
    yield opened
    opened.close()


def results(queue: Queue, destination: str, number: int = 3) -> None:
    """Jobs that are done, with a result each."""
    for n in range(number):
        queue.receive(b"eye", f"{destination}.{n}", f"{destination}{n}")
        job = queue.claim()
        assert job is not None
        part = queue.spool.create_staging_folder()
        (part / "a.dcm").write_bytes(to_bytes(make_photograph()))
        queue.complete(job, part, 0.1, [("a.dcm", destination)])


class Scripted:
    """A destination that says what it is told to, one word for each file."""

    def __init__(self, *words: str | Exception) -> None:
        self.words, self.calls, self.sent = list(words), 0, []

    def accepts(self, file: str) -> bool:
        return True

    def deliver(self, paths: Sequence[Path]) -> Generator[DeliveryResult, None, None]:
        self.calls += 1
        for path in paths:
            word = self.words.pop(0) if self.words else "sent"
            if isinstance(word, Exception):
                raise word
            self.sent += [path] if word == "sent" else []
            yield DeliveryResult(word, f"said {word}")


def run(queue: Queue, name: str, destination: Destination, retry: RetrySettings = FAST) -> Callable[[], None]:
    sender = Sender(name, destination, queue, retry)
    sender.start()

    def stop() -> None:
        sender.stop()
        sender.join(5.0)
        assert not sender.alive

    return stop


def states(queue: Queue, name: str) -> dict[str, int]:
    return {state: number for (where, state), number in queue.counts().outbox.items() if where == name}


def test_everything_that_can_be_sent_is_sent_once_and_a_refusal_is_a_dead_letter(queue: Queue) -> None:
    results(queue, "pacs", 4)
    pacs = Scripted("sent", "dead", "waiting", "sent")
    stop = run(queue, "pacs", pacs)
    wait_until(lambda: states(queue, "pacs") == {"sent": 3, "dead": 1})
    stop()
    assert len(pacs.sent) == len(set(pacs.sent)) == 3
    assert [letter.reason for letter in queue.dead_letters()] == ["said dead"]


def test_a_destination_that_is_down_is_tried_again_and_holds_up_no_other(queue: Queue) -> None:
    results(queue, "pacs"), results(queue, "archive")
    down = Scripted(*[DestinationUnreachable("is down")] * 3, ValueError("a bug"))
    stops = [run(queue, "pacs", down), run(queue, "archive", Scripted())]
    wait_until(lambda: states(queue, "archive") == {"sent": 3})
    wait_until(lambda: states(queue, "pacs") == {"sent": 3})
    for stop in stops:
        stop()
    assert down.calls >= 5


def test_a_file_that_ends_the_connection_holds_up_no_other(queue: Queue) -> None:
    results(queue, "pacs", 2)
    stop = run(
        queue, "pacs", Scripted(DestinationUnreachable("aborted")), RetrySettings(first_wait=0.4, longest_wait=0.4)
    )
    wait_until(lambda: states(queue, "pacs").get("sent") == 1)
    assert queue.due_deliveries("pacs", 9) == [], "the first one waits longer"
    stop()


def test_what_is_too_old_is_given_up_with_the_last_reason(queue: Queue) -> None:
    results(queue, "pacs", 2)
    stop = run(
        queue,
        "pacs",
        Scripted("waiting", DestinationUnreachable("is down")),
        RetrySettings(first_wait=0.01, give_up_hours=1e-9),
    )
    wait_until(lambda: states(queue, "pacs") == {"dead": 2})
    stop()
    assert [letter.reason for letter in queue.dead_letters()] == ["said waiting", "is down"]


def test_waits_grow_to_the_longest_and_are_spread() -> None:
    retry = RetrySettings(first_wait=5.0, factor=2.0, longest_wait=900.0)
    for failures, step in ((0, 5), (1, 10), (3, 40), (8, 900), (10_000, 900)):
        waits = [retry_delay(retry, failures) for _ in range(50)]
        assert step / 2 <= min(waits) < max(waits) <= step


@pytest.fixture
def pacs() -> Iterator[Any]:
    """A PACS that answers with `statuses`, then with success; keeps what it got."""
    configure_dicom_libraries()
    entity, kept, statuses = AE("PACS"), [], []

    def store(event: Any) -> int:
        kept.append(dcmread(BytesIO(event.encoded_dataset())))
        return statuses.pop(0) if statuses else 0

    entity.add_supported_context(OphthalmicPhotography8BitImageStorage, ExplicitVRLittleEndian)
    entity.require_called_aet = True
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    server.kept, server.statuses, server.port = kept, statuses, server.server_address[1]
    yield server
    server.shutdown()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.dcm" for n in range(3)]
    for path in paths:
        path.write_bytes(to_bytes(make_photograph()))
    return paths


def node(port: int, title: str = "PACS") -> CStoreDestination:
    return CStoreDestination(DicomNodeSettings(ae_title=title, host="127.0.0.1", port=port, seconds=5.0), "DEEPMTDR")


def test_a_pacs_gets_the_files_as_they_are_and_each_status_counts(pacs: Any, files: list[Path]) -> None:
    assert [one.state for one in node(pacs.port).deliver(files)] == ["sent"] * 3
    assert pacs.kept == [dcmread(path) for path in files]
    pacs.statuses[:] = [0xA700, 0xA900, 0x0111]
    deliveries = list(node(pacs.port).deliver(files))
    assert [one.state for one in deliveries] == ["waiting", "dead", "sent"]
    assert deliveries[1].reason == "status 0xA900"
    pacs.statuses[:] = [0xB000, 0xC001, 0x0122]
    assert [one.state for one in node(pacs.port).deliver(files)] == ["sent", "dead", "dead"]


def test_a_sop_class_that_a_pacs_does_not_take_is_refused_and_the_others_go(pacs: Any, files: list[Path]) -> None:
    files[1].write_bytes(to_bytes(make_photograph(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")))
    deliveries = list(node(pacs.port).deliver(files))
    assert [one.state for one in deliveries] == ["sent", "dead", "sent"]
    assert "66.4" in deliveries[1].reason


def test_a_file_that_is_gone_holds_up_no_other(pacs: Any, files: list[Path]) -> None:
    files[0].unlink()
    said = list(node(pacs.port).deliver(files))
    assert (said[0].state, said[0].reason) == ("dead", "its file is gone or damaged")
    assert all(each.state != "waiting" for each in said) and any(each.state == "sent" for each in said[1:])


def test_a_pacs_that_rejects_or_is_down_is_unreachable(pacs: Any, files: list[Path]) -> None:
    with pytest.raises(DestinationUnreachable, match="rejected the association"):
        list(node(pacs.port, "OTHER").deliver(files))
    pacs.shutdown()
    pacs.ae._servers.append(pacs)
    with pytest.raises(DestinationUnreachable, match=r"does not answer|aborted"):
        list(node(pacs.port).deliver(files))


@requires_programs("storescp")
def test_dcmtk_is_a_pacs_that_stores(files: list[Path], tmp_path: Path) -> None:
    configure_dicom_libraries()
    (tmp_path / "pacs").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [program_path("storescp"), "-aet", "PACS", "-od", str(tmp_path / "pacs"), "+B", str(port)]
    ) as process:
        try:
            wait_until(lambda: _listens(port))
            assert [one.state for one in node(port).deliver(files)] == ["sent"] * 3
        finally:
            process.terminate()
    got = {dcmread(path).SOPInstanceUID for path in (tmp_path / "pacs").iterdir()}
    assert got == {dcmread(path).SOPInstanceUID for path in files}


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


class Web(BaseHTTPRequestHandler):
    """Answers with what the test has put on its server."""

    server: Any
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        status, text = self.server.answers.pop(0) if self.server.answers else (200, "{}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.got, server.answers = [], []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/base"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def failed(reason: int) -> str:
    return json.dumps({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}})


def test_stow_sends_each_object_whole_and_reads_the_answer(web: Any, files: list[Path]) -> None:
    web.answers[:] = [(200, "{}"), (202, "{}"), (200, "no JSON")]
    assert [one.state for one in StowDestination(WebServerSettings(url=web.url)).deliver(files)] == ["sent"] * 3
    for (path, headers, body), file in zip(web.got, files, strict=True):
        assert path == "/base/studies"
        boundary = headers["Content-Type"].partition("boundary=")[2].encode()
        head, content, tail = body.split(b"--" + boundary)
        assert (head, tail) == (b"", b"--\r\n")
        assert content == b"\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ((409, failed(0x0122)), "dead"),
        ((202, failed(0xA900)), "dead"),
        ((409, failed(0xA700)), "waiting"),
        ((409, failed(0x0111)), "sent"),
        ((400, "no"), "dead"),
        ((415, "no"), "dead"),
        ((503, "busy"), "waiting"),
        ((429, "busy"), "waiting"),
        ((500, "down"), None),
        ((401, "who?"), None),
        ((404, "where?"), None),
        ((302, "elsewhere"), None),
    ],
)
def test_each_answer_of_a_web_server_means_what_it_means(
    web: Any, files: list[Path], answer: tuple[int, str], state: str | None
) -> None:
    web.answers[:] = [answer]
    deliveries = StowDestination(WebServerSettings(url=web.url)).deliver(files[:1])
    if state is None:
        with pytest.raises(DestinationUnreachable, match=f"HTTP {answer[0]}"):
            next(deliveries)
    else:
        assert next(deliveries).state == state
    deliveries.close()


def test_fhir_posts_the_bundle_with_its_secrets(web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fhir.json").write_text('{"resourceType": "Bundle"}')
    monkeypatch.setenv("FHIR_SECRET", "abc")
    for server in (
        WebServerSettings(url=web.url, token="env:FHIR_SECRET"),
        WebServerSettings(url=web.url, user="me", password="env:FHIR_SECRET"),
    ):
        assert [one.state for one in FhirDestination(server).deliver([tmp_path / "fhir.json"])] == ["sent"]
    (path, first, body), (_, second, _) = web.got
    assert (path, body) == ("/base", b'{"resourceType": "Bundle"}')
    assert first["Content-Type"] == "application/fhir+json"
    assert first["Authorization"] == "Bearer abc"
    assert second["Authorization"] == "Basic " + base64.b64encode(b"me:abc").decode()


def test_a_web_server_that_does_not_answer_is_unreachable(files: list[Path]) -> None:
    with pytest.raises(DestinationUnreachable, match="does not answer"):
        next(StowDestination(WebServerSettings(url="http://127.0.0.1:1/x", seconds=1.0)).deliver(files))


def test_destinations_share_the_files_of_a_job_by_kind(tmp_path: Path) -> None:
    web, pacs = WebServerSettings(url="http://x/y"), DicomNodeSettings(ae_title="PACS", host="x")
    found = create_destinations(
        make_settings(tmp_path, dicom={"pacs": pacs}, dicomweb={"archive": web}, fhir={"records": web})
    )
    taken = {
        name: [file for file in ("a.dcm", "fhir.json", "report.json") if one.accepts(file)]
        for name, one in found.items()
    }
    assert taken == {"pacs": ["a.dcm"], "archive": ["a.dcm"], "records": ["fhir.json"]}


def test_a_secret_that_is_gone_is_waited_for(queue: Queue, web: Any) -> None:
    results(queue, "records", 1)
    stop = run(queue, "records", FhirDestination(WebServerSettings(url=web.url, token="env:NO_SUCH_SECRET")))
    time.sleep(0.2)
    stop()
    assert states(queue, "records") == {"waiting": 1} and web.got == []
