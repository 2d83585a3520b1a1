#!/usr/bin/env bash
# A machine: runs in a network namespace, gives itself what a machine has for itself, and becomes its systemd.
#
# usage: boot.sh BASE DIR GROUP
#   BASE   a Debian tree, which is only read
#   DIR    what the machine writes
#   GROUP  its control group in each hierarchy
set -euo pipefail
if [[ $# == 3 ]]; then
    for hierarchy in unified systemd; do
        mkdir "/sys/fs/cgroup/$hierarchy/$3"
        echo $$ > "/sys/fs/cgroup/$hierarchy/$3/cgroup.procs"
    done
    # Its groups are all that it sees. Whoever ends what starts this ends the machine.
    exec unshare --mount --propagation private --pid --fork --kill-child --uts --ipc --cgroup "$0" "$1" "$2"
fi
base=$1 dir=$2 root=$2/root
mkdir "$dir/upper" "$dir/work" "$root"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$dir/upper,workdir=$dir/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t bpf -o mode=0700 bpf "$root/sys/fs/bpf"
mount -t tmpfs -o mode=0755 tmpfs "$root/sys/fs/cgroup"
mkdir "$root/sys/fs/cgroup/unified" "$root/sys/fs/cgroup/systemd"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
mount -t cgroup -o none,name=systemd systemd "$root/sys/fs/cgroup/systemd"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 0666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
basename "$dir" > "$root/etc/hostname"
# With none systemd would take this for the first boot of an image, and ask.
tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin unshare --root="$root" --wd=/ /lib/systemd/systemd --show-status=0
