"""Withdraw the results of photographs that were corrected: a rejection goes where the results went."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from deepmtdr.errors import DicomError
from deepmtdr.service.background_thread import BackgroundThread
from deepmtdr.service.queue import Queue
from deepmtdr.service.states import PlannedDelivery
from deepmtdr.service.supersession import SupersededJob

FAILURE_WAIT_SECONDS = 10.0
"""Wait after a failure of disk or queue, s."""

log = logging.getLogger(__name__)


def write_rejection(folder: Path) -> list[str]:
    """Write the rejection of the results in a folder; see `dicom.rejection.write_rejection`."""
    from deepmtdr.dicom.rejection import write_rejection as write  # only a service with corrections needs its libraries

    return write(folder)


class Withdrawal(BackgroundThread):
    """Writes and queues the rejections of superseded jobs."""

    def __init__(
        self,
        queue: Queue,
        deliveries: Callable[[Iterable[str]], Iterable[PlannedDelivery]],
        reject: Callable[[Path], list[str]] = write_rejection,
    ) -> None:
        """Create the thread without starting it.

        Args:
            queue: queue of the service.
            deliveries: function that decides to which destinations files are sent.
            reject: writes the rejection of the results in a folder, and returns the names of its files.
        """
        super().__init__("withdrawal")
        self.queue, self.deliveries, self.reject = queue, deliveries, reject

    def stop(self) -> None:
        """Request the thread to end."""
        super().stop()
        self.queue.notify()

    def run(self) -> None:
        """Withdraw results until `stop`."""
        while not self.stop_requested.is_set():
            try:
                self.withdraw_all()
                self.queue.wait()
            except (OSError, sqlite3.Error) as error:
                log.error("results of a corrected photograph are not withdrawn yet: %s", type(error).__name__)
                self.stop_requested.wait(FAILURE_WAIT_SECONDS)

    def withdraw_all(self) -> None:
        """Withdraw the results of all superseded jobs. A job whose results are missing becomes a dead letter."""
        for job in self.queue.supersession.pending():
            self._withdraw(job)
            self.queue.notify()

    def _withdraw(self, job: SupersededJob) -> None:
        try:
            files = self.reject(self.queue.spool.results_folder(job.id))
        except DicomError as error:
            reason = f"{error}; the photograph was corrected (job {job.successor}): reject the earlier results by hand"
            self.queue.supersession.withdraw(job, (), reason)
            log.error("job %d: superseded, but its results cannot be withdrawn; dead letter", job.id)
            return
        self.queue.supersession.withdraw(job, self.deliveries(files))
        log.warning("job %d: its results are withdrawn, job %d supersedes it", job.id, job.successor)
