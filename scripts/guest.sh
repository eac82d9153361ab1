# SPDX-License-Identifier: Apache-2.0
# Sourced after environment.sh by scripts that need a kernel of their own: a virtual machine that is emulated by QEMU, without KVM.
#
#   prepare_guest WORK PACKAGES...   once: a kernel, and a Debian with these packages and deltaimg
#   pack_tests                       the tests and what they read, in its /project; LVM without udev
#   pack_guest SCRIPT                the system's disk, with what it is to run, as root, in place of an init system
#   boot_guest SECONDS DRIVES...     boot, with these as /dev/vdb, /dev/vdc...; fails unless the script ends well
#
# A script may set before the first of them:
#   guest_kernel    package of the kernel; by default the small one of Debian's cloud images
#   guest_extras    what pip installs with deltaimg
# and before the last one `machine`, options of QEMU, where more than that kernel is to boot.

# AVX as QEMU 7.2 emulates it computes wrong results: a prune in such a machine deleted what it needed.
processor=max,-avx,-avx2,-f16c,-vaes,-vpclmulqdq
kernel_options="quiet panic=-1 mitigations=off random.trust_cpu=on"

prepare_guest() {
    work=$1
    shift
    need_packages qemu-system-x86 mmdebstrap cpio busybox-static kmod e2fsprogs
    mkdir -p "$work"
    unpack_packages "$work/kernel" "$(apt-cache depends "${guest_kernel:-linux-image-cloud-amd64}" \
        | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')"
    release=$(basename "$work"/kernel/lib/modules/*)
    depmod -b "$work/kernel" "$release"
    if [ "$(cat "$work/system/complete" 2>/dev/null)" != "$release $*" ]; then
        say "making a root file system"
        rm -rf "$work/system"
        mmdebstrap --quiet --variant=essential --include="$(IFS=, && echo "mount,python3,kmod,$*")" bookworm "$work/system"
        cp -a "$work/kernel/lib/modules" "$work/system/lib/"
        depmod -b "$work/system" "$release"
        echo "$release $*" >"$work/system/complete"
    fi
    say "installing deltaimg in it"
    rm -rf "$work/system/opt/deltaimg"
    python -m pip install --quiet --disable-pip-version-check --target "$work/system/opt/deltaimg" "$project" ${guest_extras:-}
    _make_first_system
    machine=(-cpu "$processor" -m 1024 -kernel "$work/kernel/boot/vmlinuz-$release" -initrd "$work/first.gz"
        -append "console=ttyS0 root=/dev/vda $kernel_options")
}

# unpack_packages FOLDER PACKAGES...: Debian packages, which are not installed; once.
unpack_packages() {
    local folder=$1 package
    shift
    [ "$(cat "$folder/complete" 2>/dev/null)" != "$*" ] || return 0
    say "fetching $*"
    rm -rf "$folder"
    mkdir "$folder"
    (cd "$folder" && apt-get -q -o APT::Sandbox::User=root download "$@" >/dev/null)
    for package in "$folder"/*.deb; do
        dpkg -x "$package" "$folder"
        rm "$package"
    done
    echo "$*" >"$folder/complete"
}

# What a kernel needs before it can see its root: a shell, and the modules of its disks. That of a guest of Xen is served as well.
_make_first_system() {
    rm -rf "$work/first"
    mkdir -p "$work"/first/{bin,dev,modules,new,proc,sys}
    cp "$(command -v busybox)" "$work/first/bin/busybox"
    local number=100 module file
    for module in virtio_pci virtio_blk xen-blkfront ext4; do
        modprobe -d "$work/kernel" -S "$release" --show-depends "$module"
    done | sed -n 's/^insmod //p' | while read -r file _; do
        cp -n "$file" "$work/first/modules/$((number++))-$(basename "$file")"
    done
    cat >"$work/first/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs none /dev
$b mount -t proc none /proc
$b mount -t sysfs none /sys
for module in /modules/*; do $b insmod $module 2>/dev/null; done
for word in $($b cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
until [ -b $root ]; do $b usleep 50000; done
$b mount -t ext4 $root /new
for each in dev proc sys; do $b mount --move /$each /new/$each; done
exec $b switch_root /new /inside
INIT
    chmod +x "$work/first/init"
    (cd "$work/first" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/first.gz"
}

pack_tests() {
    rm -rf "$work/system/project"
    mkdir -p "$work/system/project"
    cp -a tests benchmarks docs pyproject.toml "$work/system/project/"
    cat >"$work/system/etc/lvm/lvmlocal.conf" <<'LVM'
activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
devices { obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0 }
global { event_activation=0 }
backup { backup=0 archive=0 }
LVM
}

pack_guest() {
    cat >"$work/system/inside" <<INSIDE
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/opt/deltaimg DM_DISABLE_UDEV=1 LC_ALL=C.UTF-8
mount -t tmpfs none /tmp
mount -t tmpfs none /run
bash -e $1 && echo "GUEST: all done"
sync
echo o >/proc/sysrq-trigger
sleep 60
INSIDE
    chmod +x "$work/system/inside"
    rm -f "$work/system.img"
    truncate -s 12G "$work/system.img"
    mke2fs -q -F -t ext4 -O ^has_journal -d "$work/system" "$work/system.img"
}

boot_guest() {
    local limit_s=$1 drives=() disk
    shift
    for disk in "$work/system.img" "$@"; do
        drives+=(-drive "file=$disk,format=raw,if=virtio,cache=unsafe")
    done
    timeout "$limit_s" qemu-system-x86_64 -accel tcg -smp 1 -nodefaults -no-user-config -display none -serial stdio -no-reboot \
        "${machine[@]}" "${drives[@]}" </dev/null | stdbuf -o0 tr -d '\r' | tee "$work/console"
    grep -q 'GUEST: all done' "$work/console"
}
