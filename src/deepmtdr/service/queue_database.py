"""The SQLite database of the queue: its tables, its version, and transactions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepmtdr.errors import ServiceError
from deepmtdr.service.spool import PRIVATE_FILE_MODE

VERSION_1 = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('received', 'working', 'done', 'dead')),
    crashes INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    seconds REAL
);
CREATE INDEX jobs_by_state ON jobs (state, crashes, id);
CREATE INDEX jobs_by_uid ON jobs (uid);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id),
    file TEXT NOT NULL,
    destination TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    UNIQUE (job, file, destination)
);
CREATE INDEX outbox_by_state ON outbox (destination, state, due);
"""
VERSION_2 = """
ALTER TABLE jobs ADD COLUMN born REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN finished REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN original_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN result_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN cleared INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN born REAL NOT NULL DEFAULT 0;
UPDATE outbox SET due = 0;
CREATE TABLE clock (running_seconds REAL NOT NULL);
INSERT INTO clock VALUES (0);
"""
"""`due`, `born` and `finished` are running seconds (`running_clock.py`); `since` is s since 1970, for display only.
`cleared` is 1 if the files of the job were removed (`retention.py`).
"""
VERSION_3 = """
CREATE TABLE new_jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('received', 'working', 'done', 'dead', 'superseded')),
    crashes INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    seconds REAL,
    born REAL NOT NULL DEFAULT 0,
    finished REAL NOT NULL DEFAULT 0,
    original_bytes INTEGER NOT NULL DEFAULT 0,
    result_bytes INTEGER NOT NULL DEFAULT 0,
    cleared INTEGER NOT NULL DEFAULT 0,
    identity TEXT NOT NULL DEFAULT '',
    superseded_by INTEGER
);
INSERT INTO new_jobs (id, uid, digest, state, crashes, reason, since, seconds, born, finished, original_bytes,
    result_bytes, cleared) SELECT id, uid, digest, state, crashes, reason, since, seconds, born, finished,
    original_bytes, result_bytes, cleared FROM jobs;
DROP TABLE jobs;
ALTER TABLE new_jobs RENAME TO jobs;
CREATE INDEX jobs_by_state ON jobs (state, crashes, id);
CREATE INDEX jobs_by_uid ON jobs (uid);
"""
"""`identity` is the identity of the examined photograph (`dicom.identity`). `superseded_by` is the job of a corrected
object of the same SOP Instance UID (`supersession.py`). SQLite cannot change a CHECK, so the table is copied.
"""
MIGRATIONS = (VERSION_1, VERSION_2, VERSION_3)
"""Statements that change a queue of version 0 (empty), 1, ... to the next version."""
LOCK_TIMEOUT_SECONDS = 30
"""Longest wait for another process that writes, s."""


class QueueDatabase:
    """One connection to the database; can be used from many threads."""

    def __init__(self, path: Path) -> None:
        """Open the database, or create it.

        Raises:
            ServiceError: if the file is not a queue, or was written by a later version.
            OSError: if the file cannot be opened or created.
        """
        self.path = path
        self.lock = threading.RLock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE))  # its -wal and -shm get the same mode
        self._connection = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            with self.transaction():
                self._create_tables()
        except sqlite3.DatabaseError as error:
            self.close()
            raise ServiceError(
                f"{path}: found no queue of deepmtdr ({error}); move this file away, or set another `folder`"
            ) from error
        except ServiceError:
            self.close()
            raise

    def _create_tables(self) -> None:
        ((version,),) = self.read("PRAGMA user_version")
        if version > len(MIGRATIONS):
            raise ServiceError(
                f"{self.path}: written by a later deepmtdr (queue version {version}), expected version"
                f" {len(MIGRATIONS)}; install that deepmtdr, or set another `folder`"
            )
        for statements in MIGRATIONS[version:]:
            for statement in statements.split(";\n"):
                self.execute(statement)
        if version < len(MIGRATIONS):
            self.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Context manager for one transaction, which is committed at the end, or rolled back after an exception."""
        with self.lock:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.execute("ROLLBACK")
                raise

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Run one statement; call it within `transaction`."""
        return self._connection.execute(statement, values)

    def read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a SELECT."""
        with self.lock:
            return self._connection.execute(statement, values).fetchall()
