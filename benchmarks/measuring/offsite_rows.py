# SPDX-License-Identifier: Apache-2.0
"""Rows of the offsite benchmark: each returns the lines of a Markdown table."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from peer import CHECKOUT

from measuring.files import are_equal, remove, stored_bytes, warm
from measuring.offsite_servers import LINE_BYTES_PER_S, ROUND_TRIP_S, Servers
from measuring.process import Command, Sample, measure
from measuring.tables import markdown
from tests.support.slow_line import SlowLine
from tests.support.sshd import HOST

_MIB = 1 << 20
_LINE = {"delay_s": ROUND_TRIP_S / 2, "bytes_per_s": LINE_BYTES_PER_S}
_SMALL_BYTES = 64 * _MIB
_SNAPSHOTS = 1000
_SYNCS = 30
_CUT_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What all rows need."""

    work: Path
    trial: Path
    guest: str
    runs: int
    servers: Servers

    def image(self, number: int) -> Path:
        """A state of the guest."""
        return self.work / f"{self.guest}-night{number}.raw"

    def run(self, *argv: str | Path, **environment: str) -> Sample:
        """Run a command of any program."""
        return measure(Command(tuple(map(str, argv)), self.trial, {**self.servers.environment, **environment}))

    def deltaimg(self, *argv: str | Path, processors: int = 0) -> Sample:
        """Run a command of deltaimg, whose caches lie in the folder of the trial; perhaps on the first processors only."""
        folders = {"XDG_CACHE_HOME": str(self.trial / "cache"), "XDG_STATE_HOME": str(self.trial / "state")}
        prefix = ("taskset", "-c", f"0-{processors - 1}") if processors else ()
        command = (*prefix, sys.executable, "-m", "deltaimg", *argv, "--quiet")
        return self.run(*command, PYTHONPATH=str(CHECKOUT), **folders)

    def forget_host(self) -> None:
        """Remove what this host keeps of repositories: a cold cache, and no memory of snapshots seen."""
        for name in ("cache", "state"):
            remove(self.trial / name)

    def restic(self, repository: str, *argv: str | Path) -> Sample:
        """Run a command of restic; without a cache, as deltaimg has none then."""
        ssh = f"sftp.command={self.servers.ssh_command} -s sftp"
        return self.run("restic", "-q", "-o", ssh, "--cache-dir", self.trial / "restic", "-r", repository, *argv)

    def call(self, name: str, place: str, *argv: str | Path) -> Sample:
        """Run a command of deltaimg or restic on a repository."""
        return self.restic(place, *argv) if name == "restic" else self.deltaimg(*argv, "-r", place)


def row_full(bench: Bench) -> list[str]:
    """A full backup to each kind of store, and the servers' own clients with as many bytes."""
    image, servers = bench.image(0), bench.servers
    places: dict[str, Callable[[int], str]] = {
        "folder": lambda run: str(bench.trial / f"repo{run}"),
        "sftp": lambda run: servers.ssh.url(f"full{run}"),
        "s3": lambda run: servers.s3_url(f"full{run}"),
    }
    restic: dict[str, Callable[[int], str]] = {
        "sftp": lambda run: f"sftp:{HOST}:{servers.ssh.root}/restic{run}",
        "s3": lambda run: servers.restic_s3(f"restic{run}"),
    }
    found: dict[str, list[Sample]] = {}
    size = 0
    for run in range(bench.runs):
        for kind, place in places.items():
            bench.forget_host()
            bench.deltaimg("init", "-r", place(run))
            warm(image)
            sample = bench.deltaimg("backup", image, "--image", "guest", "-r", place(run))
            found.setdefault(f"deltaimg, {kind}", []).append(sample)
            if kind == "folder":
                size = stored_bytes(Path(place(run)))
        for kind, place in restic.items():
            bench.restic(place(run), "init")
            found.setdefault(f"restic, {kind}", []).append(bench.restic(place(run), "backup", image))
        blob = bench.trial / "blob"
        chance = random.Random(run)
        with blob.open("wb") as file:
            file.writelines(chance.randbytes(min(_MIB, size - start)) for start in range(0, size, _MIB))
        found.setdefault("OpenSSH's sftp alone", []).append(
            bench.run("sh", "-c", f"echo put {blob} {servers.ssh.root}/blob | {_sftp(servers)}")
        )
        found.setdefault("obstore alone", []).append(
            bench.run(sys.executable, "-c", _PUT, blob, servers.s3.endpoint, servers.bucket)
        )
        for path in (blob, Path(places["folder"](run))):
            remove(path)
    local = _wall(found["deltaimg, folder"])
    rows = []
    for name, samples in found.items():
        alone = {"deltaimg, sftp": "OpenSSH's sftp alone", "deltaimg, s3": "obstore alone"}.get(name)
        bound = max(1.1 * local, _wall(found[alone]) / 0.85) if alone else None
        rows.append((name, *_costs(samples), f"{_wall(samples) / local:.2f}", f"{bound:.2f}" if bound else ""))
    head = ("what", "wall s", "runs", "CPU s", "peak MiB", "of a folder", "wall s must be at most")
    return [f"{size / _MIB:.0f} MiB stored.", "", *markdown(head, rows)]


def row_restore(bench: Bench) -> list[str]:
    """A restore over a line, beside restic's."""
    image, servers, target = bench.image(0), bench.servers, bench.trial / "restored"
    bench.forget_host()
    bench.deltaimg("init", "-r", servers.s3_url("restore"))
    bench.deltaimg("backup", image, "--image", "guest", "-r", servers.s3_url("restore"))
    bench.restic(servers.restic_s3("restore-restic"), "init")
    bench.restic(servers.restic_s3("restore-restic"), "backup", image)
    rows = []
    for name in ("deltaimg", "restic"):
        bench.forget_host()
        remove(bench.trial / "restic")
        with servers.line_to_s3(**_LINE) as line:
            if name == "deltaimg":
                sample = bench.deltaimg("restore", "guest", target, "-r", servers.s3_url("restore", line))
                made = target
            else:
                repository = servers.restic_s3("restore-restic", line)
                sample = bench.restic(repository, "restore", "latest", "--target", target)
                made = target / image.relative_to("/")
            share = line.received_bytes / (sample.wall_s * LINE_BYTES_PER_S)
            figures = f"{sample.wall_s:.1f}", f"{line.received_bytes / _MIB:.0f}", f"{share:.2f}"
        rows.append((name, *figures, "yes" if are_equal(made, image) else "**no**"))
        remove(target)
    rows.append(("must be", "0.6 of restic's", "", "at least 0.92", ""))
    return markdown(("restore", "wall s", "received MiB", "of the line", "equal"), rows)


def row_wire(bench: Bench) -> list[str]:
    """Bytes that the second backup sends and receives, beside what it stores in a folder."""
    servers, folder = bench.servers, bench.trial / "wire"
    bench.forget_host()
    for number in (0, 1):
        if number == 0:
            bench.deltaimg("init", "-r", folder)
        before = stored_bytes(folder)
        bench.deltaimg("backup", bench.image(number), "--image", "guest", "-r", folder)
    stored = stored_bytes(folder) - before
    remove(folder)
    rows = [("deltaimg, stored in a folder", "", "", f"{stored / _MIB:.2f}", "")]
    for name in ("deltaimg", "restic"):
        bench.forget_host()
        with servers.line_to_s3() as line:
            place = servers.s3_url("wire", line) if name == "deltaimg" else servers.restic_s3("wire-restic", line)
            bench.call(name, place, "init")
            for number in (0, 1):
                sent, received = line.sent_bytes, line.received_bytes
                bench.call(
                    name, place, "backup", bench.image(number), *(("--image", "guest") if name == "deltaimg" else ())
                )
            each = line.sent_bytes - sent, line.received_bytes - received
        rows.append((name, *(f"{count / _MIB:.2f}" for count in (*each, sum(each))), f"{sum(each) / stored:.3f}"))
    rows.append(("must be", "", "", "", "1.03; 0.25 of restic's"))
    return markdown(("second backup", "MiB sent", "MiB received", "MiB", "of what the folder stored"), rows)


def row_sync(bench: Bench) -> list[str]:
    """Requests of copying one backup after another, beyond those that put packs."""
    servers, source, image = bench.servers, bench.trial / "source", bench.trial / "small.raw"
    chance = random.Random(7)
    image.write_bytes(chance.randbytes(_SMALL_BYTES))
    bench.forget_host()
    bench.deltaimg("init", "-r", source)
    bench.restic(str(bench.trial / "restic-source"), "init")
    counts: dict[str, list[int]] = {"deltaimg sync": [], "restic copy": [], "rclone copy": []}
    with servers.line_to_s3() as line:
        target = servers.s3_url("synced", line)
        far = servers.restic_s3("synced-restic", line)
        bench.deltaimg("init", "--like", source, "-r", target)
        bench.restic(far, "init", "--from-repo", bench.trial / "restic-source", "--copy-chunker-params",
                     "--from-password-command", "echo benchmark")  # fmt: skip
        for _ in range(_SYNCS):
            _scribble(image, chance)
            bench.deltaimg("backup", image, "--image", "vm", "-r", source)
            bench.restic(str(bench.trial / "restic-source"), "backup", image)
            for name, call in (
                ("deltaimg sync", lambda: bench.deltaimg("sync", source, target)),
                ("restic copy", lambda: bench.restic(far, "copy", "--from-repo", bench.trial / "restic-source",
                                                     "--from-password-command", "echo benchmark")),
                ("rclone copy", lambda: bench.run("rclone", "copy", source, _rclone(servers, line, "synced-rclone"))),
            ):  # fmt: skip
                before = line.requests
                call()
                counts[name].append(line.requests - before)
    rows = [
        (name, f"{statistics.median(each[1:]):.0f}", f"{max(each[1:])}", f"{each[0]}") for name, each in counts.items()
    ]
    rows.append(("must be", "12 and the packs'", "", ""))
    return markdown(("requests to S3", "a backup", "most", "the first"), rows)


def row_limit(bench: Bench) -> list[str]:
    """A minute under `--bwlimit 1M`, second by second."""
    servers, image, seconds = bench.servers, bench.trial / "random.raw", 60
    image.write_bytes(random.Random(3).randbytes((seconds + 12) * _MIB))
    rows = []
    for kind in ("s3", "sftp"):
        bench.forget_host()
        with servers.line_to_s3() if kind == "s3" else servers.line_to_ssh() as line:
            place = servers.s3_url("limit", line) if kind == "s3" else servers.ssh.url("limit")
            bench.deltaimg("init", "-r", place)
            ended = threading.Event()
            sampler = _Sampler(line, ended)
            sampler.start()
            bench.deltaimg("backup", image, "--image", "vm", "-r", place, "--bwlimit", "1M")
            ended.set()
            sampler.join()
        busy = sampler.busy_seconds()[2 : seconds + 2]
        rows.append((kind, f"{statistics.mean(busy) / _MIB:.3f}", f"{max(busy) / _MIB:.2f}", str(len(busy))))
    rows.append(("must be", "0.97 to 1.03", "1.3", "60"))
    return markdown(("--bwlimit 1M", "mean MiB/s", "largest second", "seconds"), rows)


def row_cuts(bench: Bench) -> list[str]:
    """A full backup over a line that is cut again and again."""
    servers, rows, sent = bench.servers, [], {}
    for name in ("uncut", "cut"):
        for kind in ("s3", "sftp"):
            bench.forget_host()
            with servers.line_to_s3(**_LINE) if kind == "s3" else servers.line_to_ssh(**_LINE) as line:
                prefix = f"cuts-{name}"
                place = servers.s3_url(prefix, line) if kind == "s3" else servers.ssh.url(prefix)
                bench.deltaimg("init", "-r", place)
                ended = threading.Event()
                cutter = _Cutter(line, ended)
                if name == "cut":
                    cutter.start()
                sample = bench.deltaimg("backup", bench.image(0), "--image", "guest", "-r", place)
                ended.set()
                sent[name, kind] = line.sent_bytes
            ratio = f"{sent[name, kind] / sent['uncut', kind]:.3f}"
            rows.append(
                (f"{kind}, {name}", f"{sample.wall_s:.1f}", str(cutter.cuts), f"{line.sent_bytes / _MIB:.1f}", ratio)
            )
    rows.append(("must be", "", "", "", "1.03"))
    return markdown(("backup", "wall s", "cuts", "sent MiB", "of the uncut run"), rows)


_FIRST, _DAY, _AGAIN = "the first time over a copy", "an ordinary day", "again, nothing changed"


def row_mirror(bench: Bench) -> list[str]:
    """A copy of a guest's first state brought to the second and then found equal, by deltaimg and by rsync."""
    rows = [
        *_bring_up_to_date(bench, "deltaimg mirror", _mirror, (_FIRST, _DAY, _AGAIN)),
        # It keeps nothing from one day to the next.
        *_bring_up_to_date(bench, "rsync", _rsync, (_DAY, _AGAIN)),
        ("must be, of rsync's", "0.3", "", "0.4", ""),
    ]
    return markdown(_MIRROR_HEAD, rows)


def row_rdiff(bench: Bench) -> list[str]:
    """The same by rdiff and scp, which take so long that they are a row of their own."""
    return markdown(_MIRROR_HEAD, _bring_up_to_date(bench, "rdiff and scp", _rdiff, (_DAY, _AGAIN)))


_MIRROR_HEAD = ("mirror", "wall s", "CPU s here", "MiB on the wire", "equal")


def _bring_up_to_date(
    bench: Bench, name: str, bring: Callable[[Bench, Path, Path], Sample], states: Sequence[str]
) -> list[tuple[str, ...]]:
    servers, rows = bench.servers, []
    copy = servers.ssh.root / "copy.img"
    for what in states:
        if what != _AGAIN:
            bench.forget_host()
            remove(copy)
            remove(servers.ssh.root / f".{copy.name}.mirror")
            subprocess.run(["cp", "--sparse=always", bench.image(0), copy], check=True)
            if bring is _mirror and what == _DAY:
                bring(bench, bench.image(0), copy)  # the day before
        warm(bench.image(1))
        warm(copy)
        with servers.line_to_ssh() as line:
            sample = bring(bench, bench.image(1), copy)
            wire = line.sent_bytes + line.received_bytes
        equal = "yes" if are_equal(copy, bench.image(1)) else "**no**"
        rows.append((f"{name}, {what}", f"{sample.wall_s:.2f}", f"{sample.cpu_s:.2f}", f"{wire / _MIB:.2f}", equal))
    return rows


def _mirror(bench: Bench, image: Path, copy: Path) -> Sample:
    ssh = bench.servers.ssh_command.removesuffix(f" {HOST}")
    remote = f"env PYTHONPATH={CHECKOUT} {sys.executable} -m deltaimg"
    return bench.deltaimg("mirror", image, f"{HOST}:{copy}", "--force", "-e", ssh, "--remote-command", remote)


def _rsync(bench: Bench, image: Path, copy: Path) -> Sample:
    ssh = bench.servers.ssh_command.removesuffix(f" {HOST}")
    return bench.run("rsync", "--inplace", "--no-whole-file", "-I", "-z", "-e", ssh, image, f"{HOST}:{copy}")


def _rdiff(bench: Bench, image: Path, copy: Path) -> Sample:
    ssh, delta = bench.servers.ssh_command, bench.trial / "delta.zst"
    scp = ssh.removeprefix("ssh").removesuffix(f" {HOST}")
    return bench.run("sh", "-c", f"""set -e
        {ssh} rdiff signature {copy} > {bench.trial}/signature
        rdiff delta {bench.trial}/signature {image} | zstd -q -f -o {delta}
        scp -q {scp} {delta} {HOST}:{copy}.delta
        {ssh} 'zstd -q -d -c {copy}.delta | rdiff patch {copy} - {copy}.new && mv {copy}.new {copy}'
        rm {bench.trial}/signature {delta}""")  # fmt: skip


def row_metadata(bench: Bench) -> list[str]:
    """Opening, listing and checking a repository of many snapshots, with a cold cache, over 50 ms a round trip."""
    servers, source = bench.servers, bench.trial / "many"
    bench.forget_host()
    bench.run(sys.executable, "-c", _MANY, source, _SNAPSHOTS, PYTHONPATH=str(CHECKOUT))
    bench.deltaimg("init", "--like", source, "-r", servers.s3_url("many"))
    bench.deltaimg("sync", source, servers.s3_url("many"))
    rows = []
    for what, argv, bound in (
        ("open: show the newest", ("show", "vm"), "2"),
        ("list all snapshots", ("snapshots",), "2"),
        ("check", ("check",), "20"),
    ):
        bench.forget_host()
        with servers.line_to_s3(delay_s=ROUND_TRIP_S / 2) as line:
            sample = bench.deltaimg(*argv, "-r", servers.s3_url("many", line))
            rows.append((what, f"{sample.wall_s:.2f}", str(line.requests), bound))
    return markdown((f"{_SNAPSHOTS} snapshots", "wall s", "requests", "must be under"), rows)


ROWS: dict[str, Callable[[Bench], list[str]]] = {
    "full": row_full,
    "restore": row_restore,
    "wire": row_wire,
    "sync": row_sync,
    "limit": row_limit,
    "cuts": row_cuts,
    "mirror": row_mirror,
    "rdiff": row_rdiff,
    "metadata": row_metadata,
}

_PUT = """
import sys, obstore
from obstore.store import S3Store
path, endpoint, bucket = sys.argv[1:]
store = S3Store(bucket, endpoint=endpoint, virtual_hosted_style_request=False, client_options={"allow_http": True})
with open(path, "rb") as file:
    obstore.put(store, "blob", file)
"""
_MANY = """
import random, sys
import deltaimg
folder, count = sys.argv[1], int(sys.argv[2])
repository = deltaimg.create_repository(folder)
chance, image = random.Random(1), folder + ".raw"
with open(image, "wb") as file:
    file.write(chance.randbytes(4 << 20))
for number in range(count):
    with open(image, "r+b") as file:
        file.seek(chance.randrange(1023) * 4096)
        file.write(chance.randbytes(4096))
    deltaimg.backup(repository, image, "vm")
"""


class _Sampler(threading.Thread):
    """Notes each second how much a line has sent."""

    def __init__(self, line: SlowLine, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._line, self._ended = line, ended
        self._totals: list[int] = []

    def run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            self._totals.append(self._line.sent_bytes)
            due += 1
            time.sleep(max(0.0, due - time.monotonic()))

    def busy_seconds(self) -> list[int]:
        """Bytes of each second, from the first on in which much was sent to the last."""
        each = [after - before for before, after in pairwise(self._totals)]
        busy = [number for number, size in enumerate(each) if size > _MIB // 4]
        return each[busy[0] : busy[-1]] if busy else each


class _Cutter(threading.Thread):
    """Cuts a line again and again."""

    def __init__(self, line: SlowLine, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._line, self._ended, self.cuts = line, ended, 0

    def run(self) -> None:
        while not self._ended.wait(_CUT_EVERY_S):
            self._line.cut()
            self.cuts += 1


def _scribble(image: Path, chance: random.Random) -> None:
    """Change a hundred places of an image."""
    with image.open("r+b") as file:
        for _ in range(100):
            file.seek(chance.randrange(_SMALL_BYTES // 4096) * 4096)
            file.write(chance.randbytes(2000))


def _sftp(servers: Servers) -> str:
    return f"sftp -q -F {servers.ssh.home}/.ssh/config -o UserKnownHostsFile={servers.ssh.known_hosts} -b - {HOST}"


def _rclone(servers: Servers, line: SlowLine, prefix: str) -> str:
    options = f"provider=Other,env_auth=true,force_path_style=true,endpoint='http://127.0.0.1:{line.port}'"
    return f":s3,{options}:{servers.bucket}/{prefix}"


def _wall(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.wall_s for sample in samples)


def _costs(samples: Sequence[Sample]) -> tuple[str, str, str, str]:
    """Median wall time, all of them, CPU time, and the largest peak, as cells of a table."""
    return (
        f"{_wall(samples):.2f}",
        " ".join(f"{sample.wall_s:.2f}" for sample in samples),
        f"{statistics.median(sample.cpu_s for sample in samples):.2f}",
        f"{max(sample.peak_bytes for sample in samples) / _MIB:.0f}",
    )
