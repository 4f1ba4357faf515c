#!/usr/bin/env bash
# floor.sh IMAGE [AGENTS]: the baseline for `minicluster up swarm`. The same Swarm (one master, AGENTS agents) from
# the same files, started by the fastest plain script that also waits until the swarm itself reports every node as ready.
# Prints when each thing was done, up and down, and leaves nothing behind. KEEP=1 leaves the cluster for inspection.
# What is prepared before the clock starts: the image, the certificates and each node's files as one tar.
set -euo pipefail
image=${1:?usage: floor.sh IMAGE [AGENTS]} agents=${2:-2}
here=$(cd "$(dirname "$0")/.." && pwd)
name=${FLOOR_NAME:-lab-floor} net=${FLOOR_NET:-172.28.251}
nodes=(master-1)
for ((i = 1; i <= agents; i++)); do nodes+=("agent-$i"); done
declare -A address
for i in "${!nodes[@]}"; do address[${nodes[i]}]=$net.$((11 + i)); done
work=$(mktemp -d)

options=(
  --network "$name" --init --cgroupns private
  --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE
  --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined
  --tmpfs /run --tmpfs /tmp:exec
  --entrypoint minicluster-entrypoint
)
dockerd=(
  -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376
  --tlsverify --tlscacert /etc/docker/tls/ca.pem --tlscert /etc/docker/tls/cert.pem --tlskey /etc/docker/tls/key.pem
)

clean() {
  for node in "${nodes[@]}"; do docker rm -fv "$name-$node" & done >/dev/null 2>&1
  wait
  for node in "${nodes[@]}"; do docker volume rm -f "$name-$node"; done >/dev/null 2>&1 || :
  docker network rm "$name" >/dev/null 2>&1 || :
}
trap 'status=$?; ((status == 0)) || clean; rm -rf "$work"' EXIT

prepare() { # certificates, and for each node a tar of all that goes into it
  openssl ecparam -name prime256v1 -genkey -noout -out "$work/ca.key"
  openssl req -x509 -new -key "$work/ca.key" -subj "/CN=$name" -days 2 -out "$work/ca.pem"
  local node root
  for node in "${nodes[@]}"; do
    root=$work/$node
    mkdir -p "$root/etc/docker/tls" "$root/usr/local/bin" "$root/usr/local/lib/minicluster"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$node" \
      -keyout "$root/etc/docker/tls/key.pem" -out "$work/csr" 2>/dev/null
    openssl x509 -req -in "$work/csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
      -extfile <(echo "subjectAltName=DNS:$node,DNS:localhost,IP:127.0.0.1,IP:${address[$node]}") \
      -out "$root/etc/docker/tls/cert.pem" 2>/dev/null
    cp "$work/ca.pem" "$root/etc/docker/tls/"
    cp "$here"/profiles/swarm/files/daemon.json "$root/etc/docker/"
    cp "$here/profiles/_lib/script.sh" "$root/usr/local/lib/minicluster/"
    cp "$here"/profiles/swarm/files/{bin,engine}/* "$root/usr/local/bin/"
    tar -C "$root" --owner=0 --group=0 -cf "$work/$node.tar" .
  done
}

launch() { # NODE
  docker create --name "$name-$1" --hostname "$1" --ip "${address[$1]}" -v "$name-$1:/var/lib/docker" \
    "${options[@]}" "$image" "${dockerd[@]}" >/dev/null
  docker cp - "$name-$1:/" <"$work/$1.tar"
  docker start "$name-$1" >/dev/null
}

ready() {
  until docker exec "$name-$1" minicluster-ready 2>/dev/null; do
    [[ $(docker inspect --format '{{.State.Running}}' "$name-$1") == true ]] ||
      {
        docker logs --tail 3 "$name-$1" >&2
        return 1
      }
  done
}

start=$(date +%s%N)
mark() { # EVENT: the seconds since the start
  awk -v event="$1" -v ns="$(($(date +%s%N) - start))" 'BEGIN {printf "%-36s %6.2f\n", event, ns / 1e9}'
}
all() {
  local pid
  for pid in "$@"; do wait "$pid"; done
}

clean
prepare
echo "up: seconds since the start"
start=$(date +%s%N)
docker network create --subnet "$net.0/24" "$name" >/dev/null
mark "network"
# `swarm init` sleeps half a second (swarmkit asks twice whether its own manager serves). Two cores have enough to do
# with one engine, so the master goes first and the agents' engines start while it sleeps; from there on each node goes
# as far as it can on its own.
master() {
  launch master-1
  : >"$work/started"
  mark "master-1 started"
  ready master-1
  mark "master-1 ready"
  docker exec "$name-master-1" swarm-init "${address["master-1"]}" "${nodes[@]:1}" >"$work/tokens.part"
  mv "$work/tokens.part" "$work/tokens"
  mark "swarm formed"
}
agent() {
  until [[ -e $work/started ]]; do sleep 0.02; done
  launch "$1"
  mark "$1 started"
  ready "$1"
  mark "$1 ready"
  until [[ -e $work/tokens ]]; do sleep 0.02; done
  docker exec "$name-$1" swarm-join "$(head -n 1 "$work/tokens")" "${address["master-1"]}" "${address[$1]}"
  mark "$1 joined"
}
master &
pids=($!)
for node in "${nodes[@]:1}"; do
  agent "$node" &
  pids+=($!)
done
all "${pids[@]}"
until (($(docker exec "$name-master-1" swarm-members | grep -c '"ready": true') == ${#nodes[@]})); do :; done
mark "all members ready"
[[ -z ${KEEP:-} ]] || exit 0

echo "down: seconds since the start"
start=$(date +%s%N)
pids=()
for node in "${nodes[@]}"; do
  docker rm -fv "$name-$node" >/dev/null &
  pids+=($!)
done
all "${pids[@]}"
mark "containers removed"
docker volume rm "${nodes[@]/#/$name-}" >/dev/null
mark "volumes removed"
docker network rm "$name" >/dev/null
mark "network removed"
