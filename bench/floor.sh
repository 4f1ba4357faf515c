#!/usr/bin/env bash
# floor.sh FOLDER: the baseline for `minicluster up swarm`. The same Swarm from the same files, from a FOLDER that plain.py
# wrote before, started by the fastest plain script that also waits until the swarm itself reports every node as ready.
# Prints when each thing was done, up and down, and leaves nothing behind. KEEP=1 leaves the cluster for inspection.
set -euo pipefail
folder=${1:?usage: floor.sh FOLDER}
name=$(<"$folder/name") subnet=$(<"$folder/subnet")
mapfile -t nodes <"$folder/nodes"
declare -A address
for node in "${nodes[@]}"; do address[$node]=$(sed -n 's/^--ip=//p' "$folder/$node.create"); done
work=$(mktemp -d)

clean() {
  for node in "${nodes[@]}"; do docker rm -fv "$name-$node" & done >/dev/null 2>&1
  wait
  docker volume ls -q --filter "name=^$name-" | xargs -r docker volume rm >/dev/null 2>&1 || :
  docker network rm "$name" >/dev/null 2>&1 || :
}
trap 'status=$?; ((status == 0)) || clean; rm -rf "$work"' EXIT

launch() { # NODE
  local -a options
  mapfile -t options <"$folder/$1.create"
  docker create --name "$name-$1" --network "$name" "${options[@]}" >/dev/null
  docker cp - "$name-$1:/" <"$folder/$1.tar"
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
echo "up: seconds since the start"
start=$(date +%s%N)
docker network create --subnet "$subnet" "$name" >/dev/null
mark "network"
# `swarm init` sleeps half a second (swarmkit asks twice whether its own manager serves). Two cores have enough to do
# with one engine, so the master goes first and the agents' engines start while it sleeps; from there on each node goes
# as far as it can on its own.
master() {
  trap '[[ -e $work/tokens ]] || : >"$work/failed"' EXIT
  launch master-1
  : >"$work/started"
  mark "master-1 started"
  ready master-1
  mark "master-1 ready"
  docker exec "$name-master-1" swarm-init "${address["master-1"]}" "${nodes[@]:1}" >"$work/tokens.part"
  mv "$work/tokens.part" "$work/tokens"
  mark "swarm formed"
}
await() { # FILE: until the master has written it, or has failed
  until [[ -e $1 ]]; do
    [[ ! -e $work/failed ]] || return
    sleep 0.02
  done
}
agent() {
  await "$work/started"
  launch "$1"
  mark "$1 started"
  ready "$1"
  mark "$1 ready"
  await "$work/tokens"
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
docker volume ls -q --filter "name=^$name-" | xargs docker volume rm >/dev/null
mark "volumes removed"
docker network rm "$name" >/dev/null
mark "network removed"
