#!/bin/sh
# Installs the FedUI agent from @URL@, enrols it and runs it. Run it again at any time: it updates the agent, and never
# enrols twice. FEDAGENT_TOKEN holds the token; it is asked for if it is needed and not set.
# FEDAGENT_PLACE: where to install. FEDAGENT_HOME: the agent's folder. FEDAGENT_NAME: this client's name. FEDAGENT_RUN=no: don't run it.
# Everything is inside a function that the last line calls: of a script that was cut off on its way nothing runs.
set -eu

fail() {
  echo "install: $1" >&2
  exit 1
}

find_python() {
  for python in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  return 1
}

ask_for_token() {
  [ -n "${FEDAGENT_TOKEN:-}" ] && return
  [ -r /dev/tty ] || fail "set FEDAGENT_TOKEN to the token that the operator gave you"
  printf 'Token: ' >/dev/tty
  read -r FEDAGENT_TOKEN </dev/tty
  export FEDAGENT_TOKEN
}

main() {
  python=$(find_python) || fail "Python 3.11 or newer is needed, and was not found"
  place=${FEDAGENT_PLACE:-$HOME/.local/share/fedagent}
  echo "Installing the agent in $place ..."
  "$python" -m venv "$place" || fail "no virtual environment could be made in $place; on Debian and Ubuntu: apt install python3-venv"
  "$place/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy only-if-needed @INDEX@ @PACKAGE@ ||
    fail "the agent could not be installed; pip has said why"
  fedagent="$place/bin/fedagent"
  if ! "$fedagent" status >/dev/null 2>&1; then
    ask_for_token
    "$fedagent" enroll @URL@ ${FEDAGENT_NAME:+--name "$FEDAGENT_NAME"}
  fi
  unset FEDAGENT_TOKEN
  echo "The agent is $fedagent"
  [ "${FEDAGENT_RUN:-yes}" = no ] || exec "$fedagent" run
}

main
