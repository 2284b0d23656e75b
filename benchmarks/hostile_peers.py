"""Honest cameras beside hostile peers: is every photograph answered, is memory bounded, does /health tell the truth?

Four cameras send photographs to a service that runs as its own process. At the same time ten peers, each with an
address of its own, do what a broken or hostile program does. `python -m benchmarks.hostile_peers --seconds 600` runs
for ten minutes, and fails unless every photograph was answered with success and has its results in the PACS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks._hostile_attacks import Target
from benchmarks.service import DEEPMTDR, PACS_SETTINGS, Pacs, ServiceProcess, photographs
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage
from pynetdicom import AE
from pynetdicom.association import Association

from deepmtdr.service.pynetdicom_adapter import configure_dicom_libraries
from deepmtdr.service.queue import Queue
from deepmtdr.service.states import DeliveryState, JobState, QueueCounts

CAMERAS, PAUSE_SECONDS = 4, 1.0
RECOVERY_SECONDS = 90.0
"""Longest time until /health is "ok" again after the hostile peers have gone, s."""


class HostileRunResult(NamedTuple):
    """What a run measured."""

    sent: int
    """Photographs that the cameras sent."""
    answered: int
    """Photographs that were answered with success."""
    finished: int
    """Jobs of these photographs that are done."""
    delivered: int
    """Photographs whose results the PACS has."""
    slowest_answer_seconds: float
    """Longest time from the first attempt to send a photograph to its answer."""
    attempts: Counter[str]
    """How often each kind of hostile peer connected."""
    health: Counter[str]
    """How often /health said what during the attack."""
    health_after: str
    """What /health said after the attack."""
    rss_mib: tuple[int, int]
    """Resident memory of the receiver before the attack and its largest value, MiB."""
    most_open_files: int
    events: dict[str, float]
    """Events of the receiver, from /metrics."""


def associate(target: Target, address: str) -> Association:
    """Request an association as a camera does.

    Raises:
        OSError: if it is refused.
    """
    entity = AE("CAMERA")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    entity.add_requested_context(OphthalmicPhotography8BitImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", target.port, ae_title="DEEPMTDR", bind_address=(address, 0))
    if not association.is_established:
        raise OSError("no association")
    return association


class Camera:
    """Sends photographs, each one again and again until it is answered with success."""

    def __init__(self, target: Target, address: str, make: Callable[[], Dataset]) -> None:
        self.target, self.address, self.make = target, address, make
        self.sent: list[str] = []
        self.seconds: list[float] = []
        """Time until the answer, for each photograph that was answered."""

    def run(self) -> None:
        """Send until the end; the last photograph is sent to the end too."""
        while not self.target.stop.wait(PAUSE_SECONDS):
            photograph, begun = self.make(), time.monotonic()
            self.sent.append(str(photograph.SOPInstanceUID))
            while not (success := self._send(photograph)) and time.monotonic() - begun < RECOVERY_SECONDS:
                time.sleep(0.2)
            self.seconds += [time.monotonic() - begun] * success

    def _send(self, photograph: Dataset) -> bool:
        with contextlib.suppress(OSError):
            association = associate(self.target, self.address)
            success = association.send_c_store(photograph).get("Status") == 0
            if association.is_established:
                association.release()
            return success
        return False


def read_health(target: Target) -> str:
    """The status in /health; "no answer" if there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{target.health_port}/health", timeout=5) as answer:
            return json.loads(answer.read())["status"]
    except (OSError, ValueError):
        return "no answer"


def receiver_events(target: Target) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{target.health_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {what: float(number) for what, number in re.findall(r'deepmtdr_door_total\{what="(\w+)"\} (\S+)', text)}


def resident_mib(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def run_hostile_peers(
    folder: Path, make: Callable[[], Dataset], seconds: float, program: Sequence[str] = DEEPMTDR
) -> HostileRunResult:
    """Let cameras and hostile peers send to a service at the same time.

    Args:
        folder: an empty folder.
        make: makes a photograph with its own SOP Instance UID.
        seconds: duration of the attack, s.
        program: command that runs the service; the path of its settings is appended.
    """
    configure_dicom_libraries()
    with closing(Pacs()) as pacs:
        service = ServiceProcess(folder, program, PACS_SETTINGS.format(pacs=pacs.port, workers=1))
        service.start()
        assert service.process is not None
        process = service.process.pid
        found = re.search(r"health and metrics on \S+ port (\d+)", service.log.read_text())
        assert found is not None
        target = Target(service.port, int(found[1]), threading.Event())
        cameras = [Camera(target, f"127.0.0.{2 + number}", make) for number in range(CAMERAS)]
        honest = [threading.Thread(target=camera.run) for camera in cameras]
        before = most = resident_mib(process)
        for thread in honest:
            thread.start()
        command_line = [sys.executable, "-m", "benchmarks._hostile_attacks"]
        command_line += [str(target.port), str(target.health_port), str(seconds)]
        hostile = subprocess.Popen(command_line, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
        health: Counter[str] = Counter()
        files, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(1)
            health[read_health(target)] += 1
            most = max(most, resident_mib(process))
            files = max(files, len(list(Path(f"/proc/{process}/fd").iterdir())))
        target.stop.set()
        for thread in honest:
            thread.join()
        attempts = Counter(json.loads(hostile.communicate()[0]))
        events = receiver_events(target)
        after = _wait_for_health(target)
        with closing(Queue(service.service_folder)) as queue:
            _wait_for_results(queue)
            service.end(signal.SIGTERM)
            counts = queue.counts()
            done = {uid for (uid,) in queue._database.read("SELECT uid FROM jobs WHERE state = 'done'")}
    sent = {uid for camera in cameras for uid in camera.sent}
    return HostileRunResult(
        sent=len(sent),
        answered=sum(len(camera.seconds) for camera in cameras),
        finished=len(done & sent),
        delivered=min(counts.outbox.get(("pacs", DeliveryState.SENT), 0), len(pacs.stored)),
        slowest_answer_seconds=round(max((one for camera in cameras for one in camera.seconds), default=0.0), 2),
        attempts=attempts,
        health=health,
        health_after=after,
        rss_mib=(before, most),
        most_open_files=files,
        events=events,
    )


def _wait_for_health(target: Target) -> str:
    end = time.monotonic() + RECOVERY_SECONDS
    while (status := read_health(target)) != "ok" and time.monotonic() < end:
        time.sleep(1)
    return status


def _wait_for_results(queue: Queue) -> None:
    while _unfinished(queue.counts()):
        time.sleep(0.1)


def _unfinished(counts: QueueCounts) -> int:
    waiting = counts.deliveries(DeliveryState.WAITING)
    return counts.jobs[JobState.RECEIVED] + counts.jobs[JobState.WORKING] + waiting


def measure(quick: bool = False) -> dict[str, object]:
    drawn = iter(photographs(500))
    with tempfile.TemporaryDirectory() as folder:
        return run_hostile_peers(Path(folder), lambda: next(drawn), 20.0 if quick else 60.0)._asdict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    drawn = iter(photographs(5000))
    with tempfile.TemporaryDirectory() as folder:
        result = run_hostile_peers(Path(folder), lambda: next(drawn), chosen.seconds)
    print(json.dumps(result._asdict(), indent=2))
    if not result.sent == result.answered == result.finished or result.health_after != "ok":
        sys.exit("an honest photograph was not answered, or /health does not tell the truth")


if __name__ == "__main__":
    main()
