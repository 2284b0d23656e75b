"""`deepmtdr serve` end to end: objects a minute, from the first C-STORE to the last result in a PACS.

Drawn photographs as DICOM, sent by several senders at once to a service of its own, results to a PACS that counts them.
`python -m benchmarks.service --photographs 500 --kills 10` ends the service with kill -9 so many times in between, and
fails unless each photograph has one result, in the queue and in the PACS.
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
from typing import Any, NamedTuple

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import StoragePresentationContexts

from deepmtdr.service.queue import DeadLetter, Queue, QueueCounts
from deepmtdr.service.receiver import configure_dicom_libraries

PHOTOGRAPHS, SENDERS, DRAWINGS, SIDE = 24, 4, 6, 600
DEEPMTDR = (sys.executable, "-c", "from deepmtdr.cli import app; app()", "serve")
SETTINGS = """
folder = "service"
least_free_mb = 0
[receiver]
port = {receiver}
[health]
port = 0
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
    """What a run gave."""

    photographs: int
    seconds: float
    """From the first C-STORE to the last result in the PACS."""
    kills: int
    counts: QueueCounts
    dead: list[DeadLetter]
    folders: int
    """Of results on the disk."""
    stored: Counter[str]
    """How often each SOP Instance UID came to the PACS."""
    answers: int
    """C-STORE requests that were answered with success, repeats among them."""
    left: list[str]
    """Unfinished files and folders that are still there."""

    def as_json(self) -> dict[str, object]:
        """What is worth keeping."""
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
    """Counts what comes, and keeps nothing."""

    def __init__(self) -> None:
        self.stored: Counter[str] = Counter()
        entity = AE("PACS")
        entity.supported_contexts = StoragePresentationContexts
        handlers: Any = [(evt.EVT_C_STORE, self._store)]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]

    def _store(self, event: Any) -> int:
        self.stored[str(event.request.AffectedSOPInstanceUID)] += 1
        return 0

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()


class Site:
    """A service as a process of its own, that can be killed and started again on the same port."""

    def __init__(self, folder: Path, program: Sequence[str], pacs: int, workers: int) -> None:
        self.folder, self.program, self.pacs, self.workers, self.port = folder, program, pacs, workers, 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the program and wait until it listens."""
        settings, log = self.folder / "serve.toml", self.folder / "log"
        settings.write_text(SETTINGS.format(receiver=self.port, pacs=self.pacs, workers=self.workers))
        log.write_text("")
        with log.open("a") as errors:
            self.process = subprocess.Popen([*self.program, str(settings)], stderr=errors, stdout=errors)
        while not (listens := re.search(r"listens on \S+ port (\d+)", log.read_text())):
            if self.process.poll() is not None:
                sys.exit(f"the service did not start: {log.read_text()[-500:]}")
            time.sleep(0.02)
        self.port = int(listens[1])

    def end(self, how: signal.Signals) -> None:
        """Send it a signal and wait until it is gone."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait()


def send_all(site: Site, objects: Sequence[Dataset], answers: list[int]) -> None:
    """As a camera does: again and again, until each object was answered with success."""
    left = list(objects)
    while left:
        entity = AE("CAMERA")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 3  # of a service that was killed
        entity.add_requested_context(OphthalmicPhotography8BitImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", site.port, ae_title="DEEPMTDR")
        while left and association.is_established:
            if getattr(association.send_c_store(left[0]), "Status", None) == 0:
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
    """Send objects from four senders at once to a service, and wait until everything is in the PACS.

    Args:
        folder: an empty one.
        objects: each with a SOP Instance UID of its own.
        kills: how often the service is killed and started again, at random moments.
        workers: of the service.
        program: command that runs it; the path of its settings is added.
        seed: of the moments.
    """
    configure_dicom_libraries()
    answers: list[int] = []
    with closing(Pacs()) as pacs:
        site = Site(folder, program, pacs.port, workers)
        site.start()
        begun = time.perf_counter()
        shares = [objects[n::SENDERS] for n in range(SENDERS)]
        senders = [threading.Thread(target=send_all, args=(site, share, answers)) for share in shares]
        for sender in senders:
            sender.start()
        with closing(Queue(folder / "service")) as queue:
            _kill(site, queue, kills, len(objects), random.Random(seed))
            for sender in senders:
                sender.join()
            while not _over(queue.counts(), len(objects)):
                time.sleep(0.05)
            seconds = time.perf_counter() - begun
            site.end(signal.SIGTERM)
            service = folder / "service"
            folders = len(list((service / "results").glob("[0-9]*")))
            left = [path.name for room in ("originals", "results") for path in (service / room).glob(".*")]
            counts, dead = queue.counts(), queue.dead_letters()
    return LoadTestResult(len(objects), seconds, kills, counts, dead, folders, pacs.stored, len(answers), left)


def _kill(site: Site, queue: Queue, kills: int, objects: int, moments: random.Random) -> None:
    """At a random moment of each of so many equal parts of the work."""
    for number in range(kills):
        while queue.counts().jobs["done"] < objects * (number + moments.random()) / (kills + 1):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        site.end(signal.SIGKILL)
        site.start()


def _over(counts: QueueCounts, objects: int) -> bool:
    waiting = any(number for (_, state), number in counts.outbox.items() if state == "waiting")
    return counts.jobs["done"] + counts.jobs["dead"] >= objects and not waiting


def photographs(number: int) -> list[Dataset]:
    """Drawings as Ophthalmic Photography objects; a few drawings, each object with UIDs of its own."""
    from deepmtdr.synthetic.drawings import draw_photograph

    pixels = [draw_photograph(seed, size=SIDE).photograph for seed in range(min(DRAWINGS, number))]
    return [_object(pixels[n % len(pixels)], n) for n in range(number)]


def _object(pixels: Any, number: int) -> Dataset:
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
    dcmwrite(BytesIO(), data, enforce_file_format=True)  # sets how it is encoded
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
    if done.dead or done.left or not done.folders == done.counts.jobs["done"] == chosen.photographs:
        sys.exit("lost, twice or left behind")


if __name__ == "__main__":
    main()
