#!/usr/bin/env bash
# Writes what a cluster is made of: keys, tokens, settings of each part, and the image of the pause container.
#
# usage: files.sh STATE_DIR CGROUP_PREFIX NODE…
#   NODE is a name; node number N has 10.79.0.1N, its Pods 10.78.N.0/24, its control group CGROUP_PREFIX and its name
set -euo pipefail
state=$1 prefix=$2; shift 2
runtime=$(realpath "$(dirname "$0")/../images/runtime/runc-bounded")
host=10.79.0.1
mkdir -p "$state"/{pki,images,pause/tree}; cd "$state"

kubeconfig() { # FILE TOKEN
    cat > "$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: dt, cluster: {server: "https://$host:6443", certificate-authority: "$state/pki/ca.crt"}}]
users: [{name: me, user: {token: $2}}]
contexts: [{name: dt, context: {cluster: dt, user: me}}]
current-context: dt
YAML
}
issue() { # NAME SUBJECT SAN: a key, and a certificate signed by our authority
    openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout "pki/$1.key" -out "pki/$1.csr" 2>/dev/null
    openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 2 -out "pki/$1.crt" \
        -extfile <(echo "subjectAltName=$3") 2>/dev/null
}

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=dt-tests -keyout pki/ca.key -out pki/ca.crt 2>/dev/null
openssl genrsa -out pki/sa.key 2048 2>/dev/null
issue apiserver /CN=kube-apiserver "IP:$host,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default.svc"
issue kubelet-client /O=system:masters/CN=apiserver-kubelet-client DNS:apiserver
{
    echo 'admin-token,admin,1,"system:masters"'
    echo 'cm-token,system:kube-controller-manager,2'
    echo 'scheduler-token,system:kube-scheduler,3'
    echo 'proxy-token,system:kube-proxy,4'
    for node in "$@"; do echo "$node-token,system:node:$node,$node,\"system:nodes\""; done
} > pki/tokens.csv
kubeconfig admin.conf admin-token
kubeconfig cm.conf cm-token
kubeconfig scheduler.conf scheduler-token
kubeconfig proxy.conf proxy-token
cat > Corefile <<DNS
.:53 {
  bind $host
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $state/admin.conf dt
  }
  cache 5
  errors
}
DNS

# One static program that sleeps, as three files and an archive: there is no registry that would have the usual one.
printf '#include <unistd.h>\nint main(void) { for (;;) pause(); }\n' | gcc -Os -static -s -x c - -o pause/tree/pause
tar -C pause/tree -cf pause/layer.tar pause
layer=$(sha256sum < pause/layer.tar | cut -d' ' -f1)
echo '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:'"$layer"'"]}}' \
    > pause/config.json
echo '[{"Config":"config.json","RepoTags":["localhost/pause:1"],"Layers":["layer.tar"]}]' > pause/manifest.json
tar -C pause -cf images/pause.tar config.json manifest.json layer.tar

n=0
for node in "$@"; do
    n=$((n + 1)) dir=$state/$node
    mkdir -p "$dir"/{cni,lib,log,cgroup}
    kubeconfig "$dir/kubelet.conf" "$node-token"
    echo "nameserver $host" > "$dir/resolv.conf"
    cat > "$dir/cni/10-dt.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "dt", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.78.$n.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
    # Without CAP_SYS_RESOURCE the runtime may not lower scores: restrict_oom_score_adj.
    cat > "$dir/containerd.toml" <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$runtime"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
TOML
    cat > "$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$state/pki/ca.crt"}}
authorization: {mode: Webhook}
address: 10.79.0.1$n
cgroupDriver: cgroupfs
# Of its own: a kubelet clears away the Pods that it finds in its tree and does not know.
cgroupRoot: /$prefix$node
clusterDNS: [$host]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failSwapOn: false
failCgroupV1: false
localStorageCapacityIsolation: false
resolvConf: $dir/resolv.conf
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
YAML
done
