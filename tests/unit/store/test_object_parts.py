# SPDX-License-Identifier: Apache-2.0
"""Large objects go to object storage in parts: what a cut costs, and how many are sent at once."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deltaimg.errors import ObjectExists, StoreUnavailable
from deltaimg.model import MIB
from deltaimg.store.object_storage import choose_parts_at_once
from deltaimg.store.open import open_store
from tests.support.s3_servers import S3Server
from tests.support.slow_line import SlowLine

PART_BYTES = 5 * MIB
OBJECT_BYTES = 32 * MIB + 77


@pytest.mark.parametrize("cut_at", [3, 12, 26])
def test_what_arrived_before_a_cut_is_not_sent_again(s3_server: S3Server, cut_at: int) -> None:
    bucket, data = s3_server.make_bucket(), random.Random(cut_at).randbytes(OBJECT_BYTES)
    with SlowLine(s3_server.port, delay_s=0.01, bytes_per_s=15 * MIB) as line:
        store = open_store(s3_server.location(bucket, "vm", port=line.port))
        store.put("config", [b"the store is well"])
        line.cut_after_bytes = cut_at * MIB
        assert store.put("packs/ab/large", [data[:MIB], memoryview(data)[MIB:]]) == OBJECT_BYTES
        sent_bytes = line.sent_bytes
        with pytest.raises(ObjectExists):
            store.put("packs/ab/large", [data])
    assert OBJECT_BYTES < sent_bytes < OBJECT_BYTES + 2 * PART_BYTES + MIB
    assert open_store(s3_server.location(bucket, "vm")).get("packs/ab/large") == data


def test_a_line_that_stays_cut_ends_the_put(s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket()
    with SlowLine(s3_server.port) as line:
        store = open_store(s3_server.location(bucket, "vm", port=line.port))
        line.is_cut = True
        with pytest.raises(StoreUnavailable):
            store.put("packs/ab/large", [bytes(OBJECT_BYTES)])
        line.is_cut = False
        assert list(store.list("packs/")) == []
        assert store.put("packs/ab/large", [bytes(OBJECT_BYTES)]) == OBJECT_BYTES


def test_an_upload_that_is_ended_at_the_server_is_begun_again(s3_server: S3Server) -> None:
    """A rule of the bucket, or its owner, removes what is unfinished."""
    bucket, data, client = s3_server.make_bucket(), random.Random(1).randbytes(OBJECT_BYTES), s3_server.client()
    with SlowLine(s3_server.port, bytes_per_s=10 * MIB) as line, ThreadPoolExecutor(1) as pool:
        store = open_store(s3_server.location(bucket, "vm", port=line.port))
        store.put("config", [b"the store is well"])
        put = pool.submit(store.put, "packs/ab/large", [data])
        while line.sent_bytes < 8 * MIB:
            time.sleep(0.01)
        [upload] = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        assert put.result() == OBJECT_BYTES
    assert open_store(s3_server.location(bucket, "vm")).get("packs/ab/large") == data


@pytest.mark.parametrize(("mib_per_s", "parts"), [(0.0001, 2), (1, 2), (12, 2), (20, 3), (40, 6), (60, 8), (10_000, 8)])
def test_a_faster_line_takes_more_parts_at_once(mib_per_s: float, parts: int) -> None:
    assert choose_parts_at_once(mib_per_s * MIB) == parts
