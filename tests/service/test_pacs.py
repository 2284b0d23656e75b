"""A round trip through a real PACS: DCMTK as the camera, `deepmtdr serve` in the middle, Orthanc as the archive."""

from __future__ import annotations

import email.parser
import email.policy
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from dicom_objects import NAME, make_photograph, save_dicom
from external_programs import find_program, program_path
from tiny_model import save_tiny_weights

PLUGINS = Path("/usr/share/orthanc/plugins")
NEEDED = pytest.mark.skipif(
    not (find_program("Orthanc") and find_program("storescu") and (PLUGINS / "libOrthancDicomWeb.so").exists()),
    reason="needs Orthanc with its DICOMweb plugin, and DCMTK",
)
OBJECTS = {"sr", "lesions", "probabilities", "report", "overlay", "document"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": "application/json"})) as answer:
        return json.loads(answer.read())


def wait_until(so: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """What is asked for, as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := so():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s for {what}")


@contextmanager
def running(command: list[object], folder: Path, ready: str) -> Iterator[None]:
    """A server, from when its door answers until it is told to stop."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=os.environ)
    try:
        wait_until(lambda: process.poll() is None and ask(ready), f"{ready}: {(folder / 'log').read_text()}")
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def orthanc(folder: Path) -> Iterator[tuple[str, int]]:
    """Its DICOMweb address and its DICOM port."""
    folder.mkdir()
    web, port = free_port(), free_port()
    settings = {
        **{"StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "HttpPort": web},
        **{"DicomPort": port, "DicomAet": "ORTHANC", "DicomAlwaysAllowStore": True, "AuthenticationEnabled": False},
        **{"RemoteAccessAllowed": False, "Plugins": [str(PLUGINS)], "DicomWeb": {"Enable": True}},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with running([program_path("Orthanc"), folder / "orthanc.json"], folder, f"http://127.0.0.1:{web}/system"):
        yield f"http://127.0.0.1:{web}/dicom-web", port


@contextmanager
def service(folder: Path, destination: str) -> Iterator[tuple[int, Path]]:
    """The port of `deepmtdr serve` with a tiny network, and its folder."""
    folder.mkdir()
    weights, port, health = save_tiny_weights(folder / "tiny.safetensors"), free_port(), free_port()
    (folder / "serve.toml").write_text(
        f'folder = "data"\n[receiver]\nport = {port}\n[health]\nport = {health}\n'
        f'[workers]\nweights = "{weights}"\n{destination}\n'
    )
    command = [sys.executable, "-c", "from deepmtdr.cli import app; app()", "serve", folder / "serve.toml"]
    with running(command, folder, f"http://127.0.0.1:{health}/health"):
        yield port, folder / "data"


def retrieved(url: str) -> Dataset:
    """An object by WADO-RS: the one part of a multipart answer."""
    request = urllib.request.Request(url, headers={"Accept": 'multipart/related; type="application/dicom"'})
    with urllib.request.urlopen(request) as answer:
        head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
        parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.read())
    (part,) = parts.iter_parts()
    return dcmread(io.BytesIO(part.get_payload(decode=True)))


def values(dataset: Dataset) -> dict[str, object]:
    """By tag, whatever the archive's file header says."""
    return {str(element.tag): element.value for element in dataset}


@NEEDED
@pytest.mark.parametrize("way", ["C-STORE", "DICOMweb"])
def test_results_come_back_from_the_archive_as_they_were_made(tmp_path: Path, way: str) -> None:
    path = save_dicom(tmp_path / "camera.dcm", make_photograph())
    with orthanc(tmp_path / "orthanc") as (web, pacs):
        node = f'[dicom.pacs]\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {pacs}'
        destination = node if way == "C-STORE" else f'[dicomweb.archive]\nurl = "{web}"'
        with service(tmp_path / "service", destination) as (port, folder):
            for title, where in (("ORTHANC", pacs), ("DEEPMTDR", port)):
                subprocess.run([program_path("storescu"), "-aec", title, "127.0.0.1", str(where), path], check=True)
            stored = wait_until(
                lambda: found if len(found := ask(f"{web}/studies/2.25.1/instances")) == 1 + len(OBJECTS) else None,
                "the original and six results in the archive",
            )
            made = {one.stem: dcmread(one) for one in folder.rglob("results/**/*.dcm")}
        assert set(made) == OBJECTS
        by_uid = {one["00080018"]["Value"][0]: one for one in stored}
        assert set(by_uid) == {one.SOPInstanceUID for one in made.values()} | {"2.25.123"}
        for name, one in made.items():
            url = f"{web}/studies/2.25.1/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
            assert values(retrieved(url)) == values(one), name
            assert by_uid[one.SOPInstanceUID]["00100020"]["Value"] == ["P-17"]
        assert str(made["report"].PatientName) == NAME
        asked = ask(f"{web}/instances?Modality=SEG&PatientID=P-17")
        assert {one["00080018"]["Value"][0] for one in asked} == {
            made["lesions"].SOPInstanceUID,
            made["probabilities"].SOPInstanceUID,
        }
