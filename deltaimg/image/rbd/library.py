# SPDX-License-Identifier: Apache-2.0
"""The C functions of librados and librbd that are used here, as their headers declare them.

Source  rados/librados.h and rbd/librbd.h of Ceph; the names of both libraries have not changed since 2011.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from cffi import FFI
from msgspec import Struct

from deltaimg.image.reader import SourceFailure

_DECLARATIONS: Final = """
typedef void *rados_t;
typedef void *rados_ioctx_t;
int rados_create2(rados_t *cluster, const char *cluster_name, const char *name, uint64_t flags);
int rados_conf_read_file(rados_t cluster, const char *path);
int rados_conf_parse_env(rados_t cluster, const char *variable);
int rados_conf_set(rados_t cluster, const char *option, const char *value);
int rados_conf_get(rados_t cluster, const char *option, char *buffer, size_t length);
int rados_connect(rados_t cluster);
void rados_shutdown(rados_t cluster);
int rados_ioctx_create(rados_t cluster, const char *pool, rados_ioctx_t *ioctx);
void rados_ioctx_set_namespace(rados_ioctx_t io, const char *name);
void rados_ioctx_destroy(rados_ioctx_t io);

typedef void *rbd_image_t;
typedef struct { uint64_t id; uint64_t size; const char *name; } rbd_snap_info_t;
typedef struct { char *addr; int64_t id; uint64_t cookie; } rbd_image_watcher_t;
struct timespec { long tv_sec; long tv_nsec; };
int rbd_open(rados_ioctx_t io, const char *name, rbd_image_t *image, const char *snapshot);
int rbd_open_read_only(rados_ioctx_t io, const char *name, rbd_image_t *image, const char *snapshot);
int rbd_close(rbd_image_t image);
int rbd_get_size(rbd_image_t image, uint64_t *size);
int rbd_get_features(rbd_image_t image, uint64_t *features);
int rbd_get_flags(rbd_image_t image, uint64_t *flags);
int rbd_get_overlap(rbd_image_t image, uint64_t *overlap);
int rbd_get_modify_timestamp(rbd_image_t image, struct timespec *timestamp);
ssize_t rbd_read(rbd_image_t image, uint64_t offset, size_t length, char *buffer);
ssize_t rbd_write(rbd_image_t image, uint64_t offset, size_t length, const char *buffer);
ssize_t rbd_write_zeroes(rbd_image_t image, uint64_t offset, size_t length, int zero_flags, int operation_flags);
int rbd_flush(rbd_image_t image);
int rbd_create(rados_ioctx_t io, const char *name, uint64_t size, int *order);
int rbd_rename(rados_ioctx_t io, const char *name, const char *new_name);
int rbd_remove(rados_ioctx_t io, const char *name);
int rbd_diff_iterate2(rbd_image_t image, const char *from_snapshot, uint64_t offset, uint64_t length,
                      uint8_t include_parent, uint8_t whole_object,
                      int (*take)(uint64_t, size_t, int, void *), void *argument);
int rbd_snap_set(rbd_image_t image, const char *snapshot);
int rbd_snap_list(rbd_image_t image, rbd_snap_info_t *snapshots, int *count);
void rbd_snap_list_end(rbd_snap_info_t *snapshots);
int rbd_snap_create(rbd_image_t image, const char *name);
int rbd_snap_remove(rbd_image_t image, const char *name);
int rbd_snap_rename(rbd_image_t image, const char *name, const char *new_name);
int rbd_watchers_list(rbd_image_t image, rbd_image_watcher_t *watchers, size_t *count);
void rbd_watchers_list_cleanup(rbd_image_watcher_t *watchers, size_t count);
"""
LIBRARIES: Final = ("librados.so.2", "librbd.so.1")
HINT: Final = "apt install librbd1 ceph-common"


class RbdFailure(SourceFailure):
    """Ceph does not do something; in words that follow the image's name."""


class RbdNotFound(RbdFailure):
    """There is no such image."""


class Library(Struct, frozen=True):
    """Both libraries, and what makes values for them."""

    ffi: Any
    rados: Any
    rbd: Any


@cache
def load_library() -> Library:
    """Return librados and librbd; raises RbdFailure where they are not installed."""
    ffi = FFI()
    try:
        rados, rbd = map(ffi.dlopen, LIBRARIES)
    except OSError as error:
        raise RbdFailure("is read and written by librbd, which is not installed", hint=HINT) from error
    ffi.cdef(_DECLARATIONS)
    return Library(ffi, rados, rbd)
