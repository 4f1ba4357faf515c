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
# where none is, and sets "leaderless" to the addresses of those that are managers all the same.
find_manager() { # SECONDS ADDRESS...
  seconds=$1
  shift
  leaderless=$(
    for at; do
      (engine_of "$at" && local_state 5 && [ "$state $manages" = "active true" ] && echo "$at") &
    done
    wait
  )
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
