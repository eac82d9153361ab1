# SPDX-License-Identifier: Apache-2.0
"""Run one command and write what it cost as JSON; a process of its own, kept small on purpose.

A child's ru_maxrss starts at its parent's size (the kernel carries it over exec), so a large parent would hide what
a small command needs. This one has about 10 MB and imports next to nothing.

    python -I -S child.py RESULT.json LOG COMMAND...
"""

import os
import sys
import time


def read_by(pid: int) -> int:
    """What a process and those that it waited for have read, from whatever cache; 0 where the kernel does not say."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            return int(file.readline().split()[1])
    except OSError:
        return 0


def main() -> None:
    """Measure the command given on the command line."""
    result, log, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    errors = os.open(log + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    places = [(os.POSIX_SPAWN_DUP2, source, number) for number, source in enumerate((nothing, output, errors))]
    started = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=places)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # ended, and its counters still there
    wall_s = time.monotonic() - started
    read_bytes = read_by(pid)
    _, status, usage = os.wait4(pid, 0)
    fields = (
        f'{{"wall_s": {wall_s:.6f}, "cpu_s": {usage.ru_utime + usage.ru_stime:.6f}, '
        f'"peak_bytes": {usage.ru_maxrss * 1024}, "read_bytes": {read_bytes}, '
        f'"exit_code": {os.waitstatus_to_exitcode(status)}}}'
    )
    with open(result, "w", encoding="ascii") as file:
        file.write(fields)


main()
