#!/usr/bin/env bash
# netem.sh: the program of faults between two network name spaces, on a kernel with netem; its figures are ping's own,
# which may be off by a fifth. Needs root, iproute2, nftables, ping. By hand: docs/faults.md has the results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
processes=()
logs=$(mktemp -d)
trap 'kill "${processes[@]}" 2>/dev/null || true; rm -r "$logs"' EXIT

for _ in 1 2; do
  unshare --net sleep 600 &
  processes+=($!)
done
until [[ $(readlink "/proc/${processes[0]}/ns/net") != "$(readlink /proc/self/ns/net)" &&
$(readlink "/proc/${processes[1]}/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do sleep 0.1; done
a=${processes[0]} b=${processes[1]}
in_a() { nsenter -t "$a" -n -- "$@"; }
in_b() { nsenter -t "$b" -n -- "$@"; }
in_a ip link add eth0 type veth peer name eth0 netns "/proc/$b/ns/net"
in_a ip address add 10.9.0.1/24 dev eth0
in_b ip address add 10.9.0.2/24 dev eth0
for at in in_a in_b; do
  $at ip link set eth0 up
  $at ip link set lo up
done
mac_a=$(in_a ip -o link show eth0 | sed 's/.*ether \([^ ]*\).*/\1/')
mac_b=$(in_b ip -o link show eth0 | sed 's/.*ether \([^ ]*\).*/\1/')

with() { # OPERATION COMMAND...: runs a command under a fault
  local log=$logs/$RANDOM
  : >"$log"
  FAULT=$RANDOM profiles/_fault/fault 0 "$1" >"$log" 2>&1 &
  local helper=$!
  processes+=("$helper")
  while ! grep -q . "$log" && kill -0 "$helper" 2>/dev/null; do sleep 0.2; done
  cat "$log"
  shift
  "$@"
  kill "$helper"
  wait "$helper" || true
}

round_trip() { # COUNT: the least of ping, in milliseconds: a busy machine adds to the others
  in_a ping -q -c "$1" -i 0.3 10.9.0.2 | sed -n 's|^rtt[^=]*= \([^/]*\)/.*|\1|p'
}

lost() { # COUNT: percent
  in_a ping -q -c "$1" -i 0.02 -W 1 10.9.0.2 | sed -n 's/.* \([0-9.]*\)% packet loss.*/\1/p'
}

near() { # WHAT VALUE EXPECTED PERCENT
  awk -v v="$2" -v e="$3" -v p="$4" 'BEGIN { exit !(v >= e * (1 - p / 100) && v <= e * (1 + p / 100)) }' ||
    { echo "FAILED: $1 is $2, expected $3" && exit 1; }
  echo "ok: $1 is $2 (expected $3)"
}

base=$(round_trip 10)
echo "round trip without a fault: $base ms"
check_delay() { near "round trip" "$(round_trip 15)" "$(awk -v b="$base" 'BEGIN { print b + 100 }')" 20; }
with "shape $a $mac_a - delay 100ms" check_delay
with "shape $a $mac_a $mac_b delay 100ms 10ms" check_delay
check_elsewhere() { awk -v v="$(round_trip 10)" 'BEGIN { exit !(v < 50) }' && echo "ok: packets to others are not delayed"; }
with "shape $a $mac_a 02:00:00:00:00:99 delay 100ms" check_elsewhere
check_loss() { near "loss" "$(lost 1000)" 20 20; }
with "lose $a 200 $mac_a" check_loss
with "drop $b 200 $mac_a" check_loss
check_reorder() {
  in_a ping -c 100 -i 0.01 10.9.0.2 | sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' >"$logs/order"
  local late
  late=$(awk 'NR > 1 && $1 < last { n++ } { last = $1 } END { print n + 0 }' "$logs/order")
  ((late > 5)) && echo "ok: $late of 100 packets were overtaken"
}
with "shape $a $mac_a - delay 50ms reorder 25%" check_reorder
queue() { # WHEN BYTES: how much waits where a rate is in force, but for a delay in its place
  local limit
  limit=$(in_a tc qdisc show dev eth0 | sed -n 's/^qdisc bfifo .*parent 1:1 limit \([0-9]*\)b.*/\1/p')
  [[ $limit == "$2" ]] || { echo "FAILED: the queue $1 is ${limit:-none}, expected ${2:-none}" && exit 1; }
  echo "ok: the queue $1 is ${limit:-none}"
}
rate_then_delay() {
  queue "before a delay" 125000
  with "shape $a $mac_a - delay 100ms" check_delay
  queue "after a delay" 125000
  with "shape $a $mac_a $mac_b delay 100ms" queue "beside a delay" 125000
  queue "after that" 125000
}
with "rate $a $mac_a 10000000" rate_then_delay
delay_to_then_rate() {
  with "rate $a $mac_a 10000000" queue "of a rate after a delay to one node" 125000
  queue "after the rate" ""
  check_delay
}
with "shape $a $mac_a $mac_b delay 100ms" delay_to_then_rate
delay_then_rate() { with "rate $a $mac_a 10000000" check_delay; }
with "shape $a $mac_a - delay 100ms" delay_then_rate
after=$(round_trip 10)
awk -v v="$after" -v b="$base" 'BEGIN { exit !(v < b + 20) }' && echo "ok: nothing is left: $after ms"
[[ -z $(in_a nft list tables) && $(in_a tc qdisc show dev eth0) == *noqueue* ]]
echo "all ok"
