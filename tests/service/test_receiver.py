from __future__ import annotations

import errno
import logging
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread, uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_EVENT_REPORT
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from deepmtdr.dicom.sop_classes import PHOTOGRAPH_SOP_CLASSES, TRANSFER_SYNTAXES
from deepmtdr.errors import ServiceError
from deepmtdr.service import connections
from deepmtdr.service.queue import Queue
from deepmtdr.service.receiver import StoreServer, StoreStatus
from deepmtdr.service.settings import ReceiverSettings, TlsSettings
from deepmtdr.service.states import JobState, ReceiverEvent
from external_programs import program_path, requires_programs
from fake_service import PATIENT_ID, PATIENT_NAME, make_photograph, send, to_bytes, wait_until

DCMTK = requires_programs("storescu", "echoscu")
OPENSSL = requires_programs("openssl")
Start = Callable[..., StoreServer]


@pytest.fixture
def start(queue: Queue) -> Iterator[Start]:
    """Starts a receiver without workers."""
    started: list[StoreServer] = []

    def begin(min_free_bytes: int = 0, **settings: Any) -> StoreServer:
        server = StoreServer(ReceiverSettings(**{"port": 0, "idle_seconds": 5.0, **settings}), queue, min_free_bytes)
        server.start()
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop()


def stored(server: StoreServer) -> list[bytes]:
    """The content of every file in `originals`, also of unfinished ones."""
    return [path.read_bytes() for path in sorted(server.queue.spool.originals.iterdir())]


def no_more_associations(server: StoreServer) -> bool:
    assert server._server is not None
    return not server._server.active_associations


def echo(port: int, calling: str = "CAMERA", called: str = "DEEPMTDR", **more: Any) -> int | str:
    """The status of a C-ECHO, or "rejected" or "aborted" if there was no association."""
    entity = AE(calling)
    entity.acse_timeout = entity.connection_timeout = 5
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port, ae_title=called, **more)
    if not association.is_established:
        return "rejected" if association.is_rejected else "aborted"
    status = association.send_c_echo().Status
    association.release()
    return status


def test_an_echo_is_answered(start: Start) -> None:
    assert echo(start().port) == 0


def test_an_object_is_stored_as_it_was_sent(start: Start) -> None:
    server, data = start(), make_photograph()
    assert send(server.port, [data]) == [0]
    (content,) = stored(server)
    again = dcmread(BytesIO(content))
    assert (again, again.file_meta.TransferSyntaxUID) == (data, uid.ExplicitVRLittleEndian)
    assert again.PatientName == PATIENT_NAME
    assert server.queue.counts().jobs[JobState.RECEIVED] == 1


def test_the_same_object_from_several_senders_at_the_same_time_is_one_job(start: Start) -> None:
    server, data = start(), make_photograph()
    threads = [threading.Thread(target=send, args=(server.port, [data, data])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (server.counts[ReceiverEvent.STORED], server.counts[ReceiverEvent.STORED_BEFORE]) == (1, 5)
    assert len(stored(server)) == 1


def test_every_sop_class_is_accepted_in_every_transfer_syntax(start: Start) -> None:
    server, entity = start(), AE("CAMERA")
    every = [(sop_class, syntax) for sop_class in PHOTOGRAPH_SOP_CLASSES for syntax in TRANSFER_SYNTAXES]
    for sop_class, syntax in every:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in association.accepted_contexts}
    association.release()
    assert accepted == set(every)


def test_an_uncompressed_transfer_syntax_is_chosen_if_one_is_offered(start: Start) -> None:
    server, entity = start(), AE("CAMERA")
    entity.add_requested_context(PHOTOGRAPH_SOP_CLASSES[0], [uid.JPEGBaseline8Bit, uid.ImplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    chosen = association.accepted_contexts[0].transfer_syntax
    association.release()
    assert chosen == [uid.ImplicitVRLittleEndian]


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [
        (CTImageStorage, uid.ExplicitVRLittleEndian),
        (PHOTOGRAPH_SOP_CLASSES[0], uid.DeflatedExplicitVRLittleEndian),
        (PHOTOGRAPH_SOP_CLASSES[0], uid.MPEG2MPML),
    ],
)
def test_another_sop_class_or_transfer_syntax_is_not_accepted(start: Start, sop_class: str, syntax: str) -> None:
    server, entity = start(), AE("CAMERA")
    entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    assert association.accepted_contexts == []
    association.abort()


def test_wrong_ae_titles_are_rejected_and_nothing_is_stored(start: Start) -> None:
    server = start(calling=("CAMERA",))
    assert echo(server.port) == 0
    assert echo(server.port, calling="STRANGER") == "rejected"
    assert echo(server.port, called="OTHER") == "rejected"
    assert send(server.port, [make_photograph()], calling="STRANGER") == []
    assert server.counts[ReceiverEvent.ASSOCIATION_REJECTED] == 3 and stored(server) == []


def test_a_connection_from_an_address_that_is_not_allowed_is_closed(start: Start) -> None:
    server = start(networks=("10.1.2.0/24",))
    assert echo(server.port) == "aborted"
    assert server.counts[ReceiverEvent.CONNECTION_REFUSED] == 1
    assert echo(start(networks=("127.0.0.1",)).port) == 0


def test_an_object_whose_uids_differ_from_the_request_is_refused(start: Start) -> None:
    server = start()
    data, other = make_photograph(), make_photograph()
    other.file_meta = data.file_meta
    for wrong in (other, make_photograph(SOPClassUID=PHOTOGRAPH_SOP_CLASSES[2])):
        assert stored_raw(server, as_data_set(wrong), data.SOPInstanceUID) == StoreStatus.DATA_SET_MISMATCH
    assert stored(server) == [] and server.counts[ReceiverEvent.OBJECT_REFUSED] == 2


def as_data_set(data: Dataset) -> bytes:
    """A data set without its file meta information."""
    content = to_bytes(data)
    (length,) = struct.unpack("<I", content[140:144])
    return content[144 + length :]


def stored_raw(server: StoreServer, data_set: bytes | None, instance: str) -> int | None:
    """Send any bytes as a photograph; the status, or None if there is no answer."""
    entity = AE("CAMERA")
    entity.dimse_timeout = 5
    entity.add_requested_context(PHOTOGRAPH_SOP_CLASSES[0], uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = PHOTOGRAPH_SOP_CLASSES[0], instance
    request.DataSet = None if data_set is None else BytesIO(data_set)
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.abort()
    return getattr(answer, "Status", None)


def element(group: int, number: int, value: bytes) -> bytes:
    """An element of the value representation UI, little endian."""
    return struct.pack("<HH2sH", group, number, b"UI", len(value) + len(value) % 2) + value + bytes(len(value) % 2)


@pytest.mark.parametrize(
    "first",
    [
        element(0x0002, 0x0003, b"1.2.3"),
        element(0x0002, 0x0010, uid.DeflatedExplicitVRLittleEndian.encode()),
        element(0x0000, 0x1000, b"1.2.3"),
    ],
)
def test_a_data_set_that_begins_with_an_element_of_the_file_header_is_refused(start: Start, first: bytes) -> None:
    """Such an element would replace the UIDs or the transfer syntax that were announced."""
    server, data = start(), make_photograph()
    assert stored_raw(server, first + as_data_set(data), data.SOPInstanceUID) == StoreStatus.DATA_SET_MISMATCH
    assert stored(server) == []


def test_a_damaged_data_set_is_stored(start: Start) -> None:
    server, data = start(), make_photograph()
    whole = as_data_set(data)
    assert stored_raw(server, whole[:-50], data.SOPInstanceUID) == 0
    for number, damaged in enumerate((whole[:10], b"\xff" * 200, b"\x08\x00\x18\x00UI\xff\xff" + whole)):
        assert stored_raw(server, damaged, f"1.2.{number + 1}") == 0
    assert len(stored(server)) == 4


def test_a_request_without_data_set_is_refused(start: Start) -> None:
    server = start()
    assert stored_raw(server, None, "1.2.3") == StoreStatus.DATA_SET_MISMATCH
    assert stored(server) == [] and echo(server.port) == 0


def test_a_too_large_object_is_refused_and_the_next_one_is_stored(start: Start) -> None:
    server = start(largest_mb=0.25)
    assert send(server.port, [make_photograph(side=400), make_photograph(), make_photograph(side=400)]) == [
        StoreStatus.TOO_LARGE,
        StoreStatus.SUCCESS,
        StoreStatus.TOO_LARGE,
    ]
    assert [len(content) < 2000 for content in stored(server)] == [True]


@pytest.mark.parametrize("wrong", ["errno", "min_free_bytes"])
def test_a_full_disk_is_answered_with_out_of_resources_and_nothing_is_stored(
    start: Start, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server = start(min_free_bytes=1 << 60 if wrong == "min_free_bytes" else 0)
    with monkeypatch.context() as patch:
        if wrong == "errno":
            patch.setattr("os.fsync", full)
        assert send(server.port, [make_photograph()]) == [StoreStatus.OUT_OF_RESOURCES]
    assert stored(server) == []


def test_an_unexpected_error_is_answered_with_a_status(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*_: object) -> None:
        raise KeyError(PATIENT_NAME)

    server = start()
    monkeypatch.setattr(server.queue, "receive", surprise)
    assert send(server.port, [make_photograph(), make_photograph()]) == [StoreStatus.PROCESSING_FAILURE] * 2


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + bytes(100),
        b"\x04\x00\x00\x00\x00\x0a" + bytes(10),
        b"\x01\x00\x00\x00\x00\x40" + b"\x41" * 64,
        b"\x01",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_invalid_bytes_are_survived_and_nothing_is_stored(start: Start, sent: bytes) -> None:
    server = start(idle_seconds=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(sent)
        answer = connection.recv(1000)
    assert b"Traceback" not in answer
    wait_until(lambda: no_more_associations(server))
    assert stored(server) == [] and echo(server.port) == 0


def test_an_association_that_breaks_off_is_ended_and_nothing_is_stored(start: Start) -> None:
    server, entity = start(idle_seconds=1.0), AE("CAMERA")
    entity.add_requested_context(PHOTOGRAPH_SOP_CLASSES[0], uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    request = struct.pack(">BBI", 4, 0, 500) + bytes(100)  # a PDU that is cut off
    connection: Any = association.dul.socket
    connection.socket.sendall(request)
    connection.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: no_more_associations(server))
    association.abort()
    assert stored(server) == [] and send(server.port, [make_photograph()]) == [0]


def test_a_silent_association_is_ended(start: Start) -> None:
    server, entity = start(idle_seconds=0.5), AE("CAMERA")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    wait_until(lambda: no_more_associations(server))
    wait_until(lambda: not association.is_established)


def test_too_many_associations_are_rejected_for_now(start: Start) -> None:
    server, entity = start(associations=1), AE("CAMERA")
    entity.add_requested_context(Verification)
    first = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    assert echo(server.port) == "rejected"
    first.release()
    wait_until(lambda: no_more_associations(server))
    assert echo(server.port) == 0


ASSOCIATION_REQUEST_HEAD = b"\x01\x00\x00\x00\x10\x00"
"""The first bytes of an association request of 4 KiB."""


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    """A TCP connection from an address of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0))


def test_connections_that_send_no_request_keep_nobody_out(start: Start) -> None:
    server = start(associations=2, connections_per_address=4)
    with ExitStack() as stack:
        for number in range(40):
            hostile = stack.enter_context(connect(server.port, f"127.0.0.{2 + number % 4}"))
            hostile.sendall(ASSOCIATION_REQUEST_HEAD)
        assert [echo(server.port) for _ in range(3)] == [0, 0, 0]
        assert server._server is not None and len(server._server.pool) <= 20
    assert server.counts[ReceiverEvent.CONNECTION_MADE_ROOM] > 0


def test_a_request_that_arrives_byte_by_byte_is_ended_after_its_time(start: Start) -> None:
    server = start(request_seconds=0.5)
    with connect(server.port) as hostile, suppress(ConnectionError):
        for number in range(6000):
            hostile.sendall(ASSOCIATION_REQUEST_HEAD[number : number + 1] or b"\0")
            hostile.settimeout(0.01)
            with suppress(TimeoutError):
                if hostile.recv(1) == b"":
                    break
        else:
            pytest.fail("the connection was not ended")
    assert server.counts[ReceiverEvent.CONNECTION_TOO_SLOW] == 1


def established(port: int, address: str = "127.0.0.1") -> tuple[Association, socket.socket]:
    """An association for photographs, and its TCP connection."""
    entity = AE("CAMERA")
    entity.add_requested_context(PHOTOGRAPH_SOP_CLASSES[0], uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="DEEPMTDR", bind_address=(address, 0))
    assert association.is_established and association.dul.socket is not None
    connection = association.dul.socket.socket
    assert connection is not None
    return association, connection


def fragment_pdu(header: int, content: bytes) -> bytes:
    """A P-DATA-TF PDU with one fragment."""
    value = bytes([1, header]) + content
    return struct.pack(">BBII", 4, 0, len(value) + 4, len(value)) + value


def store_command(instance: str) -> bytes:
    """The command set of a C-STORE request."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = PHOTOGRAPH_SOP_CLASSES[0], instance
    request.DataSet = BytesIO(b"any")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    return next(message.encode_msg(1, 1 << 16)).presentation_data_value_list[0][1][1:]


@pytest.mark.parametrize("step", ["pdu_seconds", "object_seconds"])
def test_a_pdu_or_an_object_that_arrives_too_slowly_is_ended(start: Start, step: str) -> None:
    server = start(**{step: 0.5})
    association, connection = established(server.port)
    connection.sendall(fragment_pdu(3, store_command("1.2.3")))
    part = fragment_pdu(0, b"x") if step == "object_seconds" else b"\0"
    if step == "pdu_seconds":
        connection.sendall(b"\x04\x00\x00\x01\x00\x00")
    with suppress(OSError):
        while not association.is_aborted:
            connection.sendall(part)
            time.sleep(0.02)
    wait_until(lambda: no_more_associations(server) and stored(server) == [])
    assert server.counts[ReceiverEvent.CONNECTION_TOO_SLOW] == 1


def test_an_object_is_on_the_disk_while_it_arrives_and_never_in_memory(start: Start) -> None:
    server = start(largest_mb=64.0)
    association, connection = established(server.port)
    connection.sendall(fragment_pdu(3, store_command("1.2.3")))
    tracemalloc.start()
    part = fragment_pdu(0, bytes(100_000))
    for _ in range(200):
        connection.sendall(part)
    arrived = server.queue.spool.originals
    wait_until(lambda: sum(path.stat().st_size for path in arrived.iterdir()) > 19_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    connection.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: stored(server) == [])
    association.abort()
    assert peak < 10_000_000


def test_the_reserve_of_the_disk_holds_while_an_object_arrives(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server, data = start(min_free_bytes=100), make_photograph(side=1000)
    left = iter([200, 200, 50])
    monkeypatch.setattr(server.queue.spool, "free_bytes", lambda: next(left))
    assert send(server.port, [data]) == [StoreStatus.OUT_OF_RESOURCES]
    assert stored(server) == []


@pytest.mark.parametrize("flood", ["echoes", "N-EVENT-REPORT"])
def test_a_peer_that_floods_is_aborted(start: Start, flood: str) -> None:
    server = start()
    association, connection = established(server.port)
    request = C_ECHO() if flood == "echoes" else N_EVENT_REPORT()
    request.MessageID = 1
    request.AffectedSOPClassUID = PHOTOGRAPH_SOP_CLASSES[0]
    if isinstance(request, N_EVENT_REPORT):
        request.AffectedSOPInstanceUID, request.EventTypeID = "1.2.3", 1
    message = C_ECHO_RQ() if flood == "echoes" else N_EVENT_REPORT_RQ()
    message.primitive_to_message(request)
    command = next(message.encode_msg(1, 1 << 16)).presentation_data_value_list[0][1][1:]
    with suppress(OSError):
        connection.sendall(fragment_pdu(3, command) * 500)
    wait_until(lambda: no_more_associations(server))
    association.abort()
    assert echo(server.port) == 0


def test_an_idle_association_of_another_address_makes_room_when_all_are_in_use(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(associations=1)
    idle, _ = established(server.port, "127.0.0.2")
    assert echo(server.port) == "rejected"
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.0)
    assert echo(server.port) == 0
    wait_until(lambda: not idle.is_established)


def test_setting_the_clock_ends_no_association(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    association, _ = established(server.port)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 8 * 24 * 3600)
    assert association.send_c_store(make_photograph()).Status == 0
    association.release()


def test_the_log_holds_no_patient_data(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = start()
    data, wrong = make_photograph(), make_photograph()
    stored_raw(server, as_data_set(wrong), "1.2.3")
    send(server.port, [data, data, make_photograph(data.SOPInstanceUID, side=9)])
    assert "job 1: received" in caplog.messages
    text = caplog.text + "".join(record.pathname + str(record.exc_info) for record in caplog.records)
    secrets = (
        PATIENT_NAME,
        "Żaneta",
        PATIENT_ID,
        data.SOPInstanceUID,
        data.StudyInstanceUID,
        wrong.SOPInstanceUID,
        "Traceback",
    )
    assert [secret for secret in secrets if secret in text] == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsSettings:
    """A certificate for this machine that is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    options += " -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "own.pem")]
    subprocess.run([program_path("openssl"), *options.split(), *files], check=True, capture_output=True)
    return TlsSettings(certificate=folder / "own.pem", key=folder / "key.pem", ca=folder / "own.pem")


def client_context(tls: TlsSettings, *, with_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca))
    if with_certificate:
        context.load_cert_chain(str(tls.certificate), str(tls.key))
    return context


@OPENSSL
def test_tls_requires_a_certificate_of_the_caller_if_a_ca_is_set(start: Start, certificate: TlsSettings) -> None:
    server = start(tls=certificate)
    assert echo(server.port, tls_args=(client_context(certificate, with_certificate=True), "127.0.0.1")) == 0
    assert echo(server.port, tls_args=(client_context(certificate, with_certificate=False), "127.0.0.1")) == "aborted"
    assert echo(server.port) == "aborted"
    open_to_all = start(tls=replace(certificate, ca=None))
    assert echo(open_to_all.port, tls_args=(client_context(certificate, with_certificate=False), "127.0.0.1")) == 0


@OPENSSL
def test_a_silent_tls_handshake_delays_no_other_connection(start: Start, certificate: TlsSettings) -> None:
    server = start(tls=certificate)
    with socket.create_connection(("127.0.0.1", server.port)):
        assert echo(server.port, tls_args=(client_context(certificate, with_certificate=True), "127.0.0.1")) == 0


def test_a_certificate_that_cannot_be_used_is_an_error(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"cannot use certificate .*gone\.pem.*expected PEM files"):
        start(tls=TlsSettings(certificate=tmp_path / "gone.pem"))


def test_a_port_that_is_in_use_is_an_error(start: Start) -> None:
    with pytest.raises(
        ServiceError, match=r"cannot listen on 127\.0\.0\.1 port \d+ \(Address already in use\); set receiver"
    ):
        start(port=start().port)


EXAMPLE = Path(__file__).parents[2] / "examples" / "dicom" / "drawing_2.dcm"


def test_the_shipped_example_can_be_sent_by_storescu_of_pynetdicom(start: Start) -> None:
    server = start()
    sender = [sys.executable, "-m", "pynetdicom", "storescu", "-aec", "DEEPMTDR"]
    done = subprocess.run(
        [*sender, "127.0.0.1", str(server.port), EXAMPLE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert [dcmread(BytesIO(content)).SOPInstanceUID for content in stored(server)] == [dcmread(EXAMPLE).SOPInstanceUID]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_uid_with_leading_zeros_is_stored(start: Start) -> None:
    server = start()
    assert send(server.port, [make_photograph("1.2.276.0.0076.5.007")]) == [0]
    assert server.queue._database.read("SELECT uid FROM jobs") == [("1.2.276.0.0076.5.007",)]


@DCMTK
def test_dcmtk_can_send_as_a_camera(start: Start, tmp_path: Path) -> None:
    server, data = start(calling=("STORESCU", "ECHOSCU")), make_photograph()
    (tmp_path / "eye.dcm").write_bytes(to_bytes(data))
    where = ["-aec", "DEEPMTDR", "127.0.0.1", str(server.port)]
    subprocess.run([program_path("echoscu"), *where], check=True)
    for syntax in ("-x=", "-xi", "-xb"):
        subprocess.run([program_path("storescu"), syntax, *where, str(tmp_path / "eye.dcm")], check=True)
    assert {dcmread(BytesIO(content)).SOPInstanceUID for content in stored(server)} == {data.SOPInstanceUID}
    wrong = subprocess.run(
        [program_path("echoscu"), "-aet", "STRANGER", *where], capture_output=True, text=True, check=False
    )
    assert wrong.returncode != 0 and "Calling AE Title Not Recognized" in wrong.stderr
