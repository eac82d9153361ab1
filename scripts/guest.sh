# SPDX-License-Identifier: Apache-2.0
# Sourced after environment.sh by scripts that need a kernel of their own: a virtual machine that is emulated by QEMU, without KVM.
#
#   prepare_guest WORK PACKAGES...   once: the kernel of Debian's cloud images, and a Debian with these packages and deltaimg
#   pack_guest SCRIPT                the system's disk, with what it is to run, as root, in place of an init system
#   boot_guest SECONDS DRIVES...     boot, with these as /dev/vdb, /dev/vdc...; fails unless the script ends well

# A small kernel, with virtio and device mapper as modules.
prepare_guest() {
    work=$1
    shift
    need_packages qemu-system-x86 mmdebstrap cpio busybox-static kmod e2fsprogs
    mkdir -p "$work"
    if [ ! -e "$work/kernel/complete" ]; then
        say "fetching a kernel"
        local package
        package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
        rm -rf "$work/kernel"
        mkdir "$work/kernel"
        (cd "$work/kernel" && apt-get -q -o APT::Sandbox::User=root download "$package" >/dev/null && dpkg -x ./*.deb .)
        touch "$work/kernel/complete"
    fi
    release=$(basename "$work"/kernel/lib/modules/*)
    depmod -b "$work/kernel" "$release"
    if [ "$(cat "$work/system/complete" 2>/dev/null)" != "$*" ]; then
        say "making a root file system"
        rm -rf "$work/system"
        mmdebstrap --quiet --variant=essential --include="$(IFS=, && echo "mount,python3,kmod,$*")" bookworm "$work/system"
        cp -a "$work/kernel/lib/modules" "$work/system/lib/"
        depmod -b "$work/system" "$release"
        echo "$*" >"$work/system/complete"
    fi
    say "installing deltaimg in it"
    rm -rf "$work/system/opt/deltaimg"
    python -m pip install --quiet --disable-pip-version-check --target "$work/system/opt/deltaimg" "$project" $guest_extras
    _make_first_system
}

# What the kernel needs before it can see its root: a shell, and the modules of its disks.
_make_first_system() {
    rm -rf "$work/first"
    mkdir -p "$work"/first/{bin,dev,modules,new,proc,sys}
    cp "$(command -v busybox)" "$work/first/bin/busybox"
    local number=100 module file
    for module in virtio_pci virtio_blk; do
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
until [ -b /dev/vda ]; do $b usleep 50000; done
$b mount -t ext4 /dev/vda /new
for each in dev proc sys; do $b mount --move /$each /new/$each; done
exec $b switch_root /new /inside
INIT
    chmod +x "$work/first/init"
    (cd "$work/first" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/first.gz"
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
    truncate -s 3G "$work/system.img"
    mke2fs -q -F -t ext4 -O ^has_journal -d "$work/system" "$work/system.img"
}

boot_guest() {
    local limit_s=$1 drives=() disk
    shift
    for disk in "$work/system.img" "$@"; do
        drives+=(-drive "file=$disk,format=raw,if=virtio,cache=unsafe")
    done
    timeout "$limit_s" qemu-system-x86_64 -accel tcg -cpu max -smp 1 -m 1024 -nodefaults -no-user-config -display none \
        -serial stdio -no-reboot -kernel "$work/kernel/boot/vmlinuz-$release" -initrd "$work/first.gz" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on" "${drives[@]}" </dev/null | tee "$work/console"
    grep -q 'GUEST: all done' "$work/console"
}
