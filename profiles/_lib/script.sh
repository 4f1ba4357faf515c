# shellcheck shell=sh
# What the shell scripts in nodes share. Sourced by dash, by busybox ash and by bash.

# fail MESSAGE...: ends the script with an error message.
fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# not_ready MESSAGE...: ends a readiness probe. The message is shown as what the node waits for.
not_ready() {
  echo "$*" >&2
  exit 1
}

# stuck MESSAGE...: as not_ready, for a state that does not end by itself. The message names the command that ends it, and
# minicluster does not wait.
stuck() {
  echo "$*" >&2
  exit 77
}

# Sets "uptime" to hundredths of a second since boot. Reading it starts no process, and setting the clock does not change
# it.
read_uptime() {
  read -r uptime _ </proc/uptime
  uptime=${uptime%.*}${uptime#*.}
}

# retry SECONDS INTERVAL COMMAND [ARGUMENT...]: runs COMMAND, which may be a function, every INTERVAL seconds until it
# succeeds. Fails when it still fails after SECONDS. "set -e" has no effect within COMMAND, and calls can be nested.
retry() {
  read_uptime
  set -- $((uptime + $1 * 100)) "$@"
  until command_of "$@"; do
    read_uptime
    [ "$uptime" -lt "$1" ] || return 1
    sleep "$3"
  done
}
command_of() { # DEADLINE SECONDS INTERVAL COMMAND [ARGUMENT...]
  shift 3
  "$@"
}

# single_flight: makes this the only run of its script in the node. A minicluster that is killed leaves the script that
# it has started running, and two at once would undo each other's steps. The newest run counts: an earlier one ends when
# it finds out that it is superseded.
single_flight() {
  ATTEMPT=$$ ATTEMPT_FILE=/run/${0##*/}.attempt
  export ATTEMPT ATTEMPT_FILE # a script that this one calls ends with it
  echo "$ATTEMPT" >"$ATTEMPT_FILE"
  exec 9>"/run/${0##*/}.lock"
  retry 30 0.1 flock -n 9 || fail "an earlier run of ${0##*/} does not end"
}

# Whether a newer run has begun. Never so in a script that is not under single_flight.
superseded() {
  [ -n "${ATTEMPT-}" ] || return 1
  read -r newest <"$ATTEMPT_FILE"
  [ "$newest" != "$ATTEMPT" ]
}
