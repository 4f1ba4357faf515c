# Sourced by quickstart, run-tests and other scripts: installs what is missing, and prints what it installs.
# Afterwards .venv, with minicluster in it, is on PATH, and an engine can be started.
# shellcheck shell=bash

PATH=$PATH:/usr/sbin:/sbin # where dockerd and apparmor_parser are; a Debian user's own PATH lacks them

script=$PWD/$(basename "$0") arguments=("$@")

say() {
  if [[ -t 2 ]]; then printf '\033[1m==>\033[0m %s\n' "$*" >&2; else printf '==> %s\n' "$*" >&2; fi
}
die() {
  printf '%s\n' "$@" >&2
  exit 1
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "This needs root: $*" "Run this script as root, or install sudo."
  fi
}

apt_ready=
apt_install() { # PACKAGE...
  command -v apt-get >/dev/null || die "Not a Debian or Ubuntu machine: install what these packages provide: $*"
  if [[ -z $apt_ready ]]; then
    as_root apt-get update -qq
    apt_ready=yes
  fi
  say "installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  die "minicluster needs Python 3.10 or newer; python3 is $(python3 --version 2>&1 || echo missing)."
}

provide_venv() { # EXTRA: "" or "[dev]"
  local python stamp wanted
  python=$(find_python)
  # Debian's python3 lacks ensurepip; python3-venv has it.
  "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    say "creating the virtual environment .venv"
    rm -rf .venv
    "$python" -m venv .venv
  fi
  # Reinstalled only when pyproject.toml has changed, or the checkout has moved.
  stamp=.venv/installed$1
  wanted="$PWD $(cksum <pyproject.toml)"
  if [[ ! -x .venv/bin/minicluster || $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
    say "installing minicluster$1 into .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$1"
    printf '%s' "$wanted" >"$stamp"
  fi
  export PATH="$PWD/.venv/bin:$PATH"
}

provide_engine() { # an engine that runs or can be started, and the docker client
  # An engine that the user chose is started by the user.
  if [[ $(uname -s) == Linux && -z ${DOCKER_HOST:-}${DOCKER_CONTEXT:-} ]] &&
    ! docker version >/dev/null 2>&1 && ! command -v dockerd >/dev/null; then
    apt_install docker.io iptables iproute2 ca-certificates
  fi
  # Where the kernel enforces AppArmor, dockerd needs its parser to start any container; Debian only recommends it.
  if grep -qs Y /sys/module/apparmor/parameters/enabled && command -v dockerd >/dev/null &&
    ! command -v apparmor_parser >/dev/null; then
    apt_install apparmor
  fi
  # The engine's service runs, but this user has no access yet: membership in its group takes effect at the next
  # log-in, or at once in a shell of that group.
  if ((EUID != 0)) && [[ -z ${DOCKER_HOST:-}${IN_DOCKER_GROUP:-} ]] && command -v sg >/dev/null &&
    ! docker version >/dev/null 2>&1 && as_root docker version >/dev/null 2>&1; then
    say "adding $(id -un) to the group docker"
    as_root usermod -aG docker "$(id -un)"
    export IN_DOCKER_GROUP=yes
    exec sg docker -c "$(printf '%q ' "$script" "${arguments[@]}")"
  fi
  if ! command -v docker >/dev/null; then
    [[ $(uname -s) == Linux ]] || die "No docker command: install Docker Desktop, or Colima and the docker client."
    apt_install docker-cli # a package of its own in newer Debian and Ubuntu releases
  fi
  # Node images start from a base image; without a registry it is built from Debian packages.
  if command -v apt-get >/dev/null && ! command -v mmdebstrap >/dev/null; then
    apt_install mmdebstrap debian-archive-keyring
  fi
}

provide_clients() { # the stock clients that tests use, besides docker
  if command -v apt-get >/dev/null && ! command -v etcdctl >/dev/null; then
    apt_install etcd-client
  fi
}

# What tests of the dashboard's page drive. Ubuntu has it in a form of its own alone: there they are skipped.
provide_browser() {
  if command -v apt-get >/dev/null && ! { command -v chromium && command -v chromedriver; } >/dev/null; then
    [[ -n $apt_ready ]] || as_root apt-get update -qq # the lists may be empty
    apt_ready=yes
    if apt-cache policy chromium-driver 2>/dev/null | grep -q 'Candidate: [0-9]'; then
      apt_install chromium chromium-driver
    fi
  fi
}

provide_linters() { # what checks the shell scripts
  local program
  for program in shellcheck shfmt; do
    command -v "$program" >/dev/null || apt_install "$program"
  done
}
