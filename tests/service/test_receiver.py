from __future__ import annotations

import errno
import logging
import socket
import ssl
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, uid
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from deepmtdr.dicom.sop_classes import PHOTOGRAPH_SOP_CLASSES, TRANSFER_SYNTAXES
from deepmtdr.errors import ServiceError
from deepmtdr.service.receiver import StoreServer, StoreStatus
from deepmtdr.service.settings import TlsSettings
from deepmtdr.service.states import JobState, ReceiverEvent
from external_programs import program_path, requires_programs
from fake_camera import Start, echo, stored
from fake_service import PATIENT_ID, PATIENT_NAME, make_photograph, send, to_bytes, wait_until

DCMTK = requires_programs("storescu", "echoscu")
OPENSSL = requires_programs("openssl")


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


@OPENSSL
def test_silent_tls_handshakes_are_bounded_and_keep_nobody_out(start: Start, certificate: TlsSettings) -> None:
    server = start(tls=certificate, associations=2, connections_per_address=4)
    with ExitStack() as stack:
        for number in range(40):
            source = (f"127.0.0.{2 + number % 4}", 0)
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), source_address=source))
        assert echo(server.port, tls_args=(client_context(certificate, with_certificate=True), "127.0.0.1")) == 0
        assert server._server is not None and len(server._server.pool) <= 20
    assert server.counts[ReceiverEvent.CONNECTION_MADE_ROOM] > 0


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
    server, data = start(calling=("STORESCU", "ECHOSCU")), make_photograph(side=64)
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
