#!/bin/sh
# progress.sh SAY COMMAND…: runs COMMAND. On a terminal the last line shows what the shell command SAY prints, again every second.
# Who writes lines of its own there meanwhile begins them with "\r\033[K".
say=$1
shift
[ -t 2 ] || exec "$@"

(while sleep 1; do printf '\r\033[K%s' "$(sh -c "$say" 2>/dev/null)"; done) >&2 &
watcher=$!
trap 'kill "$watcher" 2>/dev/null; printf "\r\033[K" >&2' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$@"
