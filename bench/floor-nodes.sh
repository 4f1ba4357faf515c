#!/usr/bin/env bash
# floor-nodes.sh FOLDER: the baseline for `minicluster up`, `stop` and `start` of a profile whose nodes form the cluster by
# themselves. The same containers, files and commands, from a FOLDER that plain.py wrote before, by the fastest plain
# script: done when every node's own probe passes and the cluster itself counts every node as ready; and, where the FOLDER
# has a script `last`, when the node that counts them has run that too.
# Prints when each thing was done, and leaves nothing behind. KEEP=1 leaves the cluster for inspection.
set -euo pipefail
folder=${1:?usage: floor-nodes.sh FOLDER}
fail() {
  echo "floor-nodes.sh: $*" >&2
  exit 1
}
[[ -e $folder/nodes ]] || fail "plain.py did not write $folder"
name=$(<"$folder/name") subnet=$(<"$folder/subnet")
mapfile -t nodes <"$folder/nodes"
mapfile -t members <"$folder/members"
asked=$name-$(<"$folder/asked")
containers=("${nodes[@]/#/$name-}")

clean() {
  docker rm -fv "${containers[@]}" >/dev/null 2>&1 || :
  docker volume ls -q --filter "name=^$name-" | xargs -r docker volume rm >/dev/null 2>&1 || :
  docker network rm "$name" >/dev/null 2>&1 || :
}
work=$(mktemp -d)
trap '(($? == 0)) || clean; rm -rf "$work"' EXIT

begin() { start=$(date +%s%N); }
mark() { # EVENT: the seconds since the start
  awk -v event="$1" -v ns="$(($(date +%s%N) - start))" 'BEGIN {printf "%-36s %6.2f\n", event, ns / 1e9}'
}
each() { # COMMAND: for every node at once
  local node pid pids=() failed=
  for node in "${nodes[@]}"; do
    "$1" "$node" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=yes; done
  [[ -z $failed ]] || fail "not every node came up"
}
launch() {
  local -a options
  mapfile -t options <"$folder/$1.create"
  docker create --name "$name-$1" --network "$name" "${options[@]}" >/dev/null
  docker cp - "$name-$1:/" <"$folder/$1.tar"
  until [[ -e $work/network ]]; do sleep 0.01; done # the engine looks for it only now
  docker start "$name-$1" >/dev/null
}
serves() {
  local -a ready
  mapfile -t ready <"$folder/$1.ready"
  until docker exec "$name-$1" "${ready[@]}" 2>/dev/null; do
    [[ $(docker inspect --format '{{.State.Running}}' "$name-$1") == true ]] ||
      {
        docker logs --tail 3 "$name-$1" >&2
        fail "$1 ended"
      }
  done
}
up() {
  launch "$1"
  serves "$1"
}
start() { docker start "$name-$1" >/dev/null; }
again() {
  start "$1"
  serves "$1"
}
counted() { # every node, by the cluster itself
  until (($(docker exec "$asked" "${members[@]}" 2>/dev/null | grep -c '"ready": *true') == ${#nodes[@]})); do :; done
}

clean
begin
{
  docker network create --subnet "$subnet" "$name" >/dev/null || :
  : >"$work/network"
} &
each up
mark "up: nodes ready"
counted
mark "up: all members ready"
if [[ -e $folder/last ]]; then
  docker exec "$asked" bash -euc "$(<"$folder/last")"
  mark "up: the cluster has worked once"
fi
[[ -z ${KEEP:-} ]] || exit 0

begin
docker stop "${containers[@]}" >/dev/null
mark "stop: containers stopped"
begin
each start
mark "start: containers started"
docker stop "${containers[@]}" >/dev/null
begin
each again
counted
mark "start: all members ready"
begin
docker rm -fv "${containers[@]}" >/dev/null
mark "down: containers removed"
clean
