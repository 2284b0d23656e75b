"""Make sure that the process may open as many files as its limits of connections allow."""

from __future__ import annotations

import resource

from deepmtdr.errors import ServiceError
from deepmtdr.service.health import MAX_HTTP_CONNECTIONS
from deepmtdr.service.limits import pool_limits
from deepmtdr.service.settings import ServiceSettings

RESERVED_FILES = 128
"""Files that are open apart from connections: database, libraries, logs, and files of the objects in work."""
FILES_PER_CONNECTION, FILES_PER_WORKER, FILES_PER_DESTINATION = 2, 16, 4
"""An association has a connection and the file of its object; a worker has pipes; a destination has a connection."""


def needed_files(settings: ServiceSettings) -> int:
    """Return the number of files that a service may have open at the same time."""
    destinations = len(settings.dicom) + len(settings.dicomweb) + len(settings.fhir)
    connections = 2 * (pool_limits(settings.receiver).connections + MAX_HTTP_CONNECTIONS)  # ended ones close later
    return (
        RESERVED_FILES
        + FILES_PER_CONNECTION * connections
        + FILES_PER_WORKER * settings.workers.count
        + FILES_PER_DESTINATION * destinations
    )


def reserve_open_files(settings: ServiceSettings) -> None:
    """Raise the limit of open files of this process, if it is too low.

    Raises:
        ServiceError: if the limit may not be raised so far.
    """
    needed = needed_files(settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard not in (resource.RLIM_INFINITY,) and hard < needed:
        raise ServiceError(
            f"found a limit of {hard} open files, expected at least {needed} for these settings; raise it"
            " (LimitNOFILE of systemd, `ulimit -Hn`), or reduce receiver.associations"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
