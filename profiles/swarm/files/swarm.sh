# shellcheck shell=sh
# What the scripts of the swarm profile share. Sourced by dash.
. /usr/local/lib/minicluster/script.sh

# engine_of ADDRESS: docker talks to the engine of the node at ADDRESS from now on.
engine_of() {
  export DOCKER_HOST="tcp://$1:2376" DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=/etc/docker/tls
}

# Sets "state", "manages" (true or false), "id" and "managers" (addresses) to what this node's engine knows of its swarm.
# Fails when the engine does not answer.
# shellcheck disable=SC2034
local_state() { # SECONDS
  state='' manages='' id='' managers=''
  info=$(timeout "$1" docker info --format "{{with .Swarm}}{{.LocalNodeState}} {{.ControlAvailable}} \
{{or .NodeID \"-\"}} {{range .RemoteManagers}}{{.Addr}} {{end}}{{end}}" 2>/dev/null) || return
  read -r state manages id managers <<INFO
$info
INFO
  [ -n "$state" ]
}

# On a node that is no manager, docker talks to one that the node knows from now on. A user may have demoted this node.
# The caller finds out when there is none.
use_manager() {
  local_state 10 || return 0
  [ "$state $manages" = "active false" ] || return 0
  for manager in $managers; do
    if (engine_of "${manager%:*}" && timeout 4 docker node ls -q >/dev/null 2>&1); then
      engine_of "${manager%:*}"
      return
    fi
  done
}

# find_manager SECONDS ADDRESS...: docker talks from now on to one of these nodes that is a manager of a swarm with a leader. Fails
# where none is, and sets "leaderless" to the addresses of those that are managers all the same, "silent" to those that do
# not say what they are, and "pending" to those that look for a manager, or are one that has just started.
find_manager() {
  seconds=$1 leaderless='' silent='' pending=''
  shift
  said=$(
    for at; do
      (
        engine_of "$at"
        local_state 10 && is="$state $manages" || is=silent
        # A manager listens, whether there is a leader or not.
        if [ "$is" = "pending false" ] && timeout 1 bash -c "</dev/tcp/$at/2377" 2>/dev/null; then is=true; fi
        case $is in
          silent | "pending false") echo "${is% *} $at" ;;
          locked* | error* | *true) echo "manager $at" ;;
        esac
      ) &
    done
    wait
  )
  while read -r kind at; do
    case $kind in
      silent) silent="$silent $at" ;;
      pending) pending="$pending $at" ;;
      manager) leaderless="$leaderless $at" ;;
    esac
  done <<SAID
$said
SAID
  [ -n "$leaderless" ] && retry "$seconds" 0.5 leads_to
}
leads_to() {
  for at in $leaderless; do
    if (engine_of "$at" && timeout 4 docker node ls -q >/dev/null 2>&1); then
      engine_of "$at"
      return
    fi
  done
  return 1
}

# Ends a script on a node whose swarm has failed, as it does once a certificate has expired (the swarm renews those of nodes that
# run) or where its data cannot be read.
stuck_in_error() {
  why=$(timeout 5 docker info --format '{{.Swarm.Error}}' 2>/dev/null | tr '\n' ' ')
  stuck "the swarm refuses this node: $why: \`docker swarm leave --force\` in it, and \`minicluster up\`, which joins it again"
}
