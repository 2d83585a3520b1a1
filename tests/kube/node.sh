#!/usr/bin/env bash
# A node: runs in network and mount namespaces of its own, gives it what a machine has for itself, and becomes its kubelet.
#
# usage: node.sh STATE_DIR NAME ADDRESS CGROUP BIN_DIR
set -euo pipefail
state=$1 name=$2 address=$3 group=$4 bin=$5
dir=$state/$name
for controller in /sys/fs/cgroup/*/; do
    [[ $controller == */unified/ ]] || mkdir -p "$controller/$group"
done
if [[ -f /sys/fs/cgroup/cpuset/cpuset.cpus ]]; then
    for file in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$file" > "/sys/fs/cgroup/cpuset/$group/cpuset.$file"; done
fi
mount --rbind /sys/fs/cgroup "$dir/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$dir/cgroup" /sys/fs/cgroup
# Programs of two nodes never meet.
mount -t bpf bpf /sys/fs/bpf
# A /run of its own, in which the state is where it was.
run=$dir/run
mkdir "$run"
mount -t tmpfs tmpfs "$run"
mkdir -p "$run/${state#/run/}"
mount --bind "$state" "$run/${state#/run/}"
# Nobody keeps a table of mounts there yet.
mount --no-mtab --move "$run" /run
mount --bind "$dir/lib" /var/lib
mount --bind "$dir/log" /var/log
mount --make-rshared /
mkdir -p /run/lock
containerd --config "$dir/containerd.toml" > "$state/containerd-$name.log" 2>&1 &
until ctr version > /dev/null 2>&1; do sleep 0.2; done
for image in "$state"/images/*.tar; do ctr -n k8s.io images import "$image" > /dev/null; done
# The namespace's conntrack table may not be resized: all of its settings at 0.
"$bin/kube-proxy" --kubeconfig="$state/proxy.conf" --proxy-mode=iptables --hostname-override="$name" --cluster-cidr=10.78.0.0/16 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 \
    --bind-address="$address" > "$state/kube-proxy-$name.log" 2>&1 &
exec "$bin/kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$dir/kubelet.conf" --hostname-override="$name" --node-ip="$address"
