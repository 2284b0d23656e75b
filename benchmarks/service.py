"""`deepmtdr serve` end to end: objects per minute, from the first C-STORE to the last result in a PACS.

Several senders send drawn photographs at the same time to a service that runs as its own process. Its results go to a
PACS that counts them. `python -m benchmarks.service --photographs 500 --kills 10` also kills the service ten times with
kill -9, and fails unless each photograph has exactly one result, in the queue and in the PACS.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import StoragePresentationContexts

from deepmtdr.service.pynetdicom_adapter import StoreEvent, configure_dicom_libraries
from deepmtdr.service.queue import Queue
from deepmtdr.service.states import DeadLetter, DeliveryState, JobState, QueueCounts

PHOTOGRAPHS, SENDERS, DRAWINGS, SIDE = 24, 4, 6, 600
DEEPMTDR = (sys.executable, "-c", "from deepmtdr.cli import app; app()", "serve")
BASE_SETTINGS = """
folder = "service"
least_free_mb = 0
[receiver]
port = {port}
[health]
port = 0
"""
PACS_SETTINGS = """
[workers]
count = {workers}
[retry]
first_wait = 0.2
longest_wait = 1
[dicom.pacs]
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
"""


class LoadTestResult(NamedTuple):
    """What a run measured."""

    photographs: int
    seconds: float
    """From the first C-STORE to the last result in the PACS."""
    kills: int
    counts: QueueCounts
    dead: list[DeadLetter]
    folders: int
    """Result folders on the disk."""
    stored: Counter[str]
    """How often the PACS received each SOP Instance UID."""
    answers: int
    """C-STORE requests that were answered with success, including repeated ones."""
    left: list[str]
    """Unfinished files and folders that remain."""

    def as_json(self) -> dict[str, object]:
        """The figures, without UIDs."""
        return {
            "photographs": self.photographs,
            "seconds": round(self.seconds, 2),
            "objects a minute, end to end": round(60 * self.photographs / self.seconds, 1),
            "kills": self.kills,
            "jobs": dict(self.counts.jobs),
            "deliveries": {" ".join(key): number for key, number in self.counts.outbox.items()},
            "seconds a job": round(self.counts.seconds / max(self.counts.examined, 1), 3),
            "answers": self.answers,
            "instances in the PACS": len(self.stored),
            "delivered more than once": sum(number > 1 for number in self.stored.values()),
            "dead letters": [letter.reason for letter in self.dead][:5],
        }


class Pacs:
    """Counts the objects it receives, without storing them."""

    def __init__(self) -> None:
        self.stored: Counter[str] = Counter()
        entity = AE("PACS")
        entity.supported_contexts = StoragePresentationContexts
        handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, self._store)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None  # it is, because block is False
        self._server = server
        self.port = self._server.server_address[1]

    def _store(self, event: StoreEvent) -> int:
        self.stored[str(event.request.AffectedSOPInstanceUID)] += 1
        return 0

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()


class ServiceProcess:
    """A service that runs as its own process, which can be killed and started again on the same port."""

    def __init__(self, folder: Path, program: Sequence[str], settings: str = "") -> None:
        """Write nothing yet.

        Args:
            folder: for the settings, the log, and the folder `service` of the service.
            program: command that runs a service; the path of the settings is appended.
            settings: TOML that is appended to `BASE_SETTINGS`.
        """
        self.folder, self.program, self.settings, self.port = folder, program, settings, 0
        self.log, self.service_folder = folder / "log", folder / "service"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the program and wait until it listens."""
        self.launch()
        while not (listens := re.search(r"listens on \S+ port (\d+).*?health and metrics", self.log.read_text(), re.S)):
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the service did not start: {self.log.read_text()[-500:]}")
            time.sleep(0.02)
        self.port = int(listens[1])

    def launch(self) -> None:
        """Write the settings and run the program without waiting; its output goes to a new log."""
        settings = self.folder / "serve.toml"
        settings.write_text(BASE_SETTINGS.format(port=self.port) + self.settings)
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*self.program, str(settings)], stderr=log, stdout=log)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal without waiting."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait until the process has ended, and return its exit code."""
        assert self.process is not None
        self.send_signal(number)
        return self.process.wait(60)


def send_all(service: ServiceProcess, objects: Sequence[Dataset], answers: list[int]) -> None:
    """Send objects as a camera does: again and again, until each one is answered with success."""
    left = list(objects)
    while left:
        entity = AE("CAMERA")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 3  # the service may have been killed
        entity.add_requested_context(OphthalmicPhotography8BitImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", service.port, ae_title="DEEPMTDR")
        while left and association.is_established:
            if association.send_c_store(left[0]).get("Status") == 0:
                left.pop(0)
                answers.append(1)
        if association.is_established:
            association.release()
        elif left:
            time.sleep(0.1)


def run_load_test(
    folder: Path,
    objects: Sequence[Dataset],
    *,
    kills: int = 0,
    workers: int = 1,
    program: Sequence[str] = DEEPMTDR,
    seed: int = 0,
) -> LoadTestResult:
    """Send objects from four senders at the same time to a service, and wait until all results are in the PACS.

    Args:
        folder: an empty folder.
        objects: photographs, each with its own SOP Instance UID.
        kills: how often the service is killed and started again, at random moments.
        workers: worker processes of the service.
        program: command that runs the service; the path of its settings is appended.
        seed: seed of the random moments.
    """
    configure_dicom_libraries()
    answers: list[int] = []
    with closing(Pacs()) as pacs:
        service = ServiceProcess(folder, program, PACS_SETTINGS.format(pacs=pacs.port, workers=workers))
        service.start()
        begun = time.perf_counter()
        shares = [objects[n::SENDERS] for n in range(SENDERS)]
        senders = [threading.Thread(target=send_all, args=(service, share, answers)) for share in shares]
        for sender in senders:
            sender.start()
        with closing(Queue(service.service_folder)) as queue:
            _kill(service, queue, kills, len(objects), random.Random(seed))
            for sender in senders:
                sender.join()
            while not _all_sent(queue.counts(), len(objects)):
                time.sleep(0.05)
            seconds = time.perf_counter() - begun
            service.end(signal.SIGTERM)
            folders = len(list(queue.spool.results.glob("[0-9]*")))
            left = [path.name for part in (queue.spool.originals, queue.spool.results) for path in part.glob(".*")]
            counts, dead = queue.counts(), queue.dead_letters()
    return LoadTestResult(len(objects), seconds, kills, counts, dead, folders, pacs.stored, len(answers), left)


def _kill(service: ServiceProcess, queue: Queue, kills: int, objects: int, moments: random.Random) -> None:
    """Kill and restart the service, at a random moment in each of `kills + 1` equal parts of the work but the last."""
    for number in range(kills):
        while queue.counts().jobs[JobState.DONE] < objects * (number + moments.random()) / (kills + 1):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        service.end(signal.SIGKILL)
        service.start()


def _all_sent(counts: QueueCounts, objects: int) -> bool:
    ended = counts.jobs[JobState.DONE] + counts.jobs[JobState.DEAD]
    return ended >= objects and not counts.deliveries(DeliveryState.WAITING)


def photographs(number: int) -> list[Dataset]:
    """Drawings as Ophthalmic Photography objects: a few drawings, but each object has its own UIDs."""
    from deepmtdr.synthetic.drawings import draw_photograph

    pixels = [draw_photograph(seed, size=SIDE).photograph for seed in range(min(DRAWINGS, number))]
    return [_encode(pixels[n % len(pixels)], n) for n in range(number)]


def _encode(pixels: NDArray[np.uint8], number: int) -> Dataset:
    """One drawing as a DICOM object."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = OphthalmicPhotography8BitImageStorage, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Modality, data.ImageLaterality = "OP", "RL"[number % 2]
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = f"Drawing^{number}", str(number), "", ""
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.StudyID = data.ReferringPhysicianName = ""
    data.SeriesNumber = data.InstanceNumber = 1
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = pixels.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(BytesIO(), data, enforce_file_format=True)  # sets the encoding of the data set
    return data


def measure(quick: bool = False) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        return run_load_test(Path(folder), photographs(4 if quick else PHOTOGRAPHS)).as_json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=PHOTOGRAPHS)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = run_load_test(Path(folder), photographs(chosen.photographs), kills=chosen.kills, workers=chosen.workers)
    print(json.dumps({"cores": os.cpu_count(), "workers": chosen.workers, **done.as_json()}, indent=2))
    if done.dead or done.left or not done.folders == done.counts.jobs[JobState.DONE] == chosen.photographs:
        sys.exit("results are missing, doubled or unfinished")


if __name__ == "__main__":
    main()
