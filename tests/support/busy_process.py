# SPDX-License-Identifier: Apache-2.0
"""A process of its own that works on a repository, over and over, until its time is up; run by `test_many_processes.py`.

python -m tests.support.busy_process backup REPOSITORY IMAGE SEED SECONDS    prints each snapshot's id and SHA-256
python -m tests.support.busy_process maintain REPOSITORY IMAGES KEPT SECONDS    prints what it did, a word a line
"""

from __future__ import annotations

import hashlib
import random
import sys
import time

from deltaimg.api.repositories import open_repository
from deltaimg.engine.prune.run import prune
from deltaimg.engine.retention.forget import forget
from deltaimg.errors import LockLost, RepositoryLocked
from deltaimg.options.keep import Policy
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.retention import plan_policy
from tests.support.clock import START
from tests.support.images import edit_at_random, make_mixed_image
from tests.support.repositories import back_up_image

IMAGE_BYTES = 1_500_000


def back_up_until(end: float, repo: str, name: str, seed: int) -> None:
    """Back up an image that has much in common with all others, and something that others have had before."""
    image = make_mixed_image(IMAGE_BYTES, seed=1)
    image.random = random.Random(seed)
    while time.monotonic() < end:
        edit_at_random(image, 6)
        shared = random.Random(image.random.randrange(4)).randbytes(60_000)
        image.write(image.random.randrange(IMAGE_BYTES), shared)
        try:
            manifest = back_up_image(open_repository(repo), image, name, workers=1)
        except (RepositoryLocked, LockLost):
            continue  # the maintainer is at this image
        print(manifest.id, hashlib.sha256(image.content).hexdigest(), flush=True)


def maintain_until(end: float, repo: str, images: list[str], kept: int) -> None:
    """Forget all but the newest snapshots of each image, and prune to the last byte."""
    while time.monotonic() < end:
        for name in images:
            try:
                forget(
                    open_repository(repo), name,
                    lambda manifests: plan_policy(manifests, policy=Policy(last=kept), now=START),
                )  # fmt: skip
                print("forget", flush=True)
            except RepositoryLocked:
                print("locked", flush=True)
        result = prune(open_repository(repo), PruneOptions(max_unused_percent=0))
        print("waited" if result.waiting else "prune", flush=True)


def main() -> None:
    task, repo, name, number, seconds = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    if task == "backup":
        back_up_until(end, repo, name, int(number))
    else:
        maintain_until(end, repo, name.split(","), int(number))


if __name__ == "__main__":
    main()
