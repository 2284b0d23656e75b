"""A round trip through a real PACS: DCMTK as the camera, `deepmtdr serve` in the middle, Orthanc as the archive."""

from __future__ import annotations

import email.parser
import email.policy
import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydicom import Dataset, dcmread

from deepmtdr.dicom.objects import ObjectKind
from dicom_objects import NAME, make_photograph, save_dicom
from external_programs import find_program, program_path
from fake_service import free_port, wait_until
from tiny_model import save_tiny_weights

PLUGINS = Path("/usr/share/orthanc/plugins")
NEEDED = pytest.mark.skipif(
    not (find_program("Orthanc") and find_program("storescu") and (PLUGINS / "libOrthancDicomWeb.so").exists()),
    reason="needs Orthanc with its DICOMweb plugin, and DCMTK",
)
SERVE = (sys.executable, "-c", "from deepmtdr.cli import app; app()", "serve")


def get_json(url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": "application/json"})) as answer:
        return json.loads(answer.read())


def if_answered(request: Callable[[], Any]) -> Any:
    """The answer to a request; None if the server does not answer yet."""
    try:
        return request()
    except OSError:
        return None


@contextmanager
def running(command: list[object], folder: Path, url: str) -> Iterator[None]:
    """Run a server; the context begins when it answers at a URL."""
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, f"{command[0]} has ended: {log_file.read_text()[-2000:]}"
        return if_answered(lambda: get_json(url)) is not None

    try:
        wait_until(answers, url, seconds=90)
        yield
    finally:
        process.terminate()
        process.wait(30)


class Archive(NamedTuple):
    """A running Orthanc."""

    url: str
    """DICOMweb."""
    port: int
    """DICOM."""


@contextmanager
def orthanc(folder: Path) -> Iterator[Archive]:
    """Run Orthanc."""
    folder.mkdir()
    web, port = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": web,
        "DicomPort": port,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "Plugins": [str(PLUGINS)],
        "DicomWeb": {"Enable": True},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with running([program_path("Orthanc"), folder / "orthanc.json"], folder, f"http://127.0.0.1:{web}/system"):
        yield Archive(f"http://127.0.0.1:{web}/dicom-web", port)


@contextmanager
def service(folder: Path, destinations: str) -> Iterator[tuple[int, Path]]:
    """Run `deepmtdr serve` with a tiny network: its port and its folder."""
    folder.mkdir()
    weights, port, health = save_tiny_weights(folder / "tiny.safetensors"), free_port(), free_port()
    (folder / "serve.toml").write_text(
        f'folder = "data"\n[receiver]\nport = {port}\n[health]\nport = {health}\n'
        f'[workers]\nweights = "{weights}"\n{destinations}\n'
    )
    with running([*SERVE, folder / "serve.toml"], folder, f"http://127.0.0.1:{health}/health"):
        yield port, folder / "data"


def retrieve(url: str) -> Dataset:
    """Retrieve an object by WADO-RS: the single part of a multipart answer."""
    request = urllib.request.Request(url, headers={"Accept": 'multipart/related; type="application/dicom"'})
    with urllib.request.urlopen(request) as answer:
        head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
        parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.read())
    (part,) = parts.iter_parts()
    return dcmread(io.BytesIO(part.get_payload(decode=True)))


def values(dataset: Dataset) -> dict[str, object]:
    """Values by tag, without the file meta information, which an archive may write anew."""
    return {str(element.tag): element.value for element in dataset}


@NEEDED
def test_archives_return_the_results_unchanged(tmp_path: Path) -> None:
    """One archive receives the results by C-STORE, another one by DICOMweb."""
    path = save_dicom(tmp_path / "camera.dcm", make_photograph())
    with orthanc(tmp_path / "pacs") as pacs, orthanc(tmp_path / "archive") as archive:
        destinations = f'[dicom.pacs]\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {pacs.port}\n'
        destinations += f'[dicomweb.archive]\nurl = "{archive.url}"'
        with service(tmp_path / "service", destinations) as (port, folder):
            for title, number in (("ORTHANC", pacs.port), ("ORTHANC", archive.port), ("DEEPMTDR", port)):
                subprocess.run([program_path("storescu"), "-aec", title, "127.0.0.1", str(number), path], check=True)
            for web in (pacs.url, archive.url):
                wait_until(partial(is_complete, web), "the original and all results in the archive", seconds=90)
            results = {one.name: dcmread(one) for one in folder.rglob("results/**/*.dcm")}
        assert set(results) == {kind.file_name for kind in ObjectKind}
        assert str(results[ObjectKind.REPORT.file_name].PatientName) == NAME
        for web in (pacs.url, archive.url):
            check_archive(web, results)


def study(web: str) -> list[dict[str, Any]]:
    """All objects of the study in an archive, as DICOM JSON; none while it does not have the study."""
    return if_answered(lambda: get_json(f"{web}/studies/2.25.1/instances")) or []


def is_complete(web: str) -> bool:
    return len(study(web)) == 1 + len(ObjectKind)


def check_archive(web: str, results: dict[str, Dataset]) -> None:
    by_uid = {one["00080018"]["Value"][0]: one for one in study(web)}
    assert set(by_uid) == {one.SOPInstanceUID for one in results.values()} | {"2.25.123"}
    for name, one in results.items():
        url = f"{web}/studies/2.25.1/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
        assert values(retrieve(url)) == values(one), name
        assert by_uid[one.SOPInstanceUID]["00100020"]["Value"] == ["P-17"]
    found = get_json(f"{web}/instances?Modality=SEG&PatientID=P-17")
    segmentations = [results[kind.file_name] for kind in (ObjectKind.LESIONS, ObjectKind.PROBABILITIES)]
    assert {one["00080018"]["Value"][0] for one in found} == {one.SOPInstanceUID for one in segmentations}
