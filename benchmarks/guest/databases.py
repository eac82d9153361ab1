# SPDX-License-Identifier: Apache-2.0
"""Database servers that really run inside the guest: PostgreSQL and MariaDB.

Always  a server is stopped cleanly when its context ends. Syncing to disk is off while it runs, which spares the
        building machine's disk and changes no byte: the image is synced as a whole when it is unmounted.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from guest.machine import CommandError
from guest.mounted import Guest


class Database(Protocol):
    """What the days ask of a database."""

    def load(self, guest: Guest, *, seed: int) -> None:
        """Create the tables and fill them, once."""

    def work(self, guest: Guest, *, transactions: int, seed: int) -> None:
        """Run so many transactions."""

    def repack(self, guest: Guest) -> None:
        """Rewrite the tables, as VACUUM FULL and OPTIMIZE TABLE do."""


class PostgreSQL:
    """PostgreSQL 15 with pgbench: 8 KiB pages, appended row versions, a write-ahead log with page images."""

    def __init__(self, *, scale: int) -> None:
        self._scale = scale

    def load(self, guest: Guest, *, seed: int) -> None:
        del seed  # pgbench fills its tables without chance
        with self._server(guest):
            self._as_postgres(guest, "createdb bench")
            self._as_postgres(guest, f"pgbench -q -i -s {self._scale} bench")

    def work(self, guest: Guest, *, transactions: int, seed: int) -> None:
        with self._server(guest):
            options = f"-n -c 4 -t {transactions // 4} --random-seed={seed}"
            self._as_postgres(guest, f"pgbench {options} bench")
            self._as_postgres(guest, "vacuumdb -q -z bench")

    def repack(self, guest: Guest) -> None:
        with self._server(guest):
            self._as_postgres(guest, "vacuumdb -q -f -z bench")

    @contextmanager
    def _server(self, guest: Guest) -> Iterator[None]:
        guest.shell("install -d -o postgres -g postgres /run/postgresql")
        control = ["pg_ctlcluster", "--skip-systemctl-redirect", "15", "main"]
        guest.run(*control, "start", "-o", "-c listen_addresses= -c fsync=off -c shared_buffers=256MB")
        try:
            yield
        finally:
            guest.run(*control, "stop", "-m", "fast")

    @staticmethod
    def _as_postgres(guest: Guest, command: str) -> None:
        guest.run("su", "postgres", "-c", command)


class MariaDB:
    """MariaDB with InnoDB: 16 KiB pages, rows updated in place, a circular redo log."""

    def __init__(self, *, rows: int) -> None:
        self._rows = rows

    def load(self, guest: Guest, *, seed: int) -> None:
        names = "CONCAT('customer ', MOD(seq * 7919, 50000))"
        note = f"CONCAT(SHA2(CONCAT(seq, '/{seed}'), 256), ' ', REPEAT(CONCAT('item ', MOD(seq, 977), ' '), 8))"
        script = f"""
            CREATE DATABASE bench; USE bench;
            CREATE TABLE orders (id INT PRIMARY KEY, customer VARCHAR(40), note VARCHAR(400), amount DECIMAL(10,2),
              changed BIGINT, KEY (customer)) ENGINE=InnoDB;
            CREATE TABLE audit (id INT AUTO_INCREMENT PRIMARY KEY, order_id INT, what VARCHAR(200)) ENGINE=InnoDB;
            INSERT INTO orders SELECT seq, {names}, {note}, MOD(seq * 31, 90000) / 100, 0 FROM seq_1_to_{self._rows};
        """
        with self._server(guest):
            self._sql(guest, script)

    def work(self, guest: Guest, *, transactions: int, seed: int) -> None:
        with self._server(guest):
            self._sql(guest, "USE bench;\n" + self._statements(transactions, seed))

    def repack(self, guest: Guest) -> None:
        with self._server(guest):
            self._sql(guest, "USE bench; OPTIMIZE TABLE orders; OPTIMIZE TABLE audit;")

    def _statements(self, transactions: int, seed: int) -> str:
        """Updates of rows spread over the table, half of them in its hot tenth, each with an audit row."""
        random = np.random.default_rng(seed)
        where = random.integers(1, self._rows, transactions)
        hot = random.random(transactions) < 0.5
        where[hot] = self._rows - where[hot] // 10
        lines = []
        for number, row in enumerate(where.tolist()):
            amount = int(random.integers(100, 9_000_000)) / 100
            lines.append(
                f"BEGIN; UPDATE orders SET amount={amount}, changed={seed * 1_000_000 + number} WHERE id={row};"
                f"INSERT INTO audit (order_id, what) VALUES ({row}, 'amount set to {amount} by clerk {number % 17}');"
                "COMMIT;"
            )
        return "\n".join(lines)

    @staticmethod
    def _sql(guest: Guest, script: str) -> None:
        guest.run("mariadb", text_in=script)

    @contextmanager
    def _server(self, guest: Guest) -> Iterator[None]:
        guest.shell("install -d -o mysql -g mysql /run/mysqld")
        command = ["mariadbd", "--user=mysql", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]
        server = subprocess.Popen([*guest.inside(), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._wait(guest)
            yield
            guest.run("mariadb-admin", "shutdown")
            server.wait(120)
        finally:
            if server.poll() is None:
                server.terminate()
                server.wait()

    @staticmethod
    def _wait(guest: Guest) -> None:
        for _ in range(120):
            try:
                guest.run("mariadb-admin", "ping")
                return
            except CommandError:
                time.sleep(0.5)
        raise CommandError("mariadbd did not answer within a minute")
