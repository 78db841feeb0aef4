#!/bin/sh
# shards.sh JOBS PATHS COMMAND…: runs COMMAND with each spec file among PATHS, one file to a process, JOBS processes at a
# time, large files first. Each says what it has to say in one piece when it has ended; what failed is named once more at
# the end, and the last line adds them up.
# On a terminal a line at the bottom tells how far it is.
jobs=$1 paths=$2
shift 2
SHARDS=$(mktemp -d)
export SHARDS
trap 'rm -rf "$SHARDS"' EXIT

# shellcheck disable=SC2086 # the paths are words
files=$(find $paths -name '*_spec.lua' -printf '%s %p\n' | sort -k 1,1rn -k 2 | cut -d ' ' -f 2-)
SHARDS_COUNT=$(echo "$files" | wc -l)
export SHARDS_COUNT

# shellcheck disable=SC2016 # $… of the inner shell
progress='for log in "$SHARDS"/*; do tail -n 1 "$log"; done | awk -v count="$SHARDS_COUNT" "
  /^[0-9]+ passed, / { files++; passed += \$1; failed += \$3 }
  END { printf \"%d of %d files, %d passed, %d failed\", files, count, passed, failed }"'

# A process without a summary died on the way. xargs would stop at a status of 255.
# shellcheck disable=SC2016 # $… of the inner shell
echo "$files" |
  "$(dirname "$0")/progress.sh" "$progress" xargs -P "$jobs" -I '{}' sh -c '
    file=$1 log=$(mktemp "$SHARDS/XXXXXX") began=$(date +%s)
    shift
    "$@" "$file" >"$log" 2>&1
    status=$?
    tail -n 1 "$log" | grep -Eq "^[0-9]+ passed, " ||
      printf "\nError -> %s\nended with status %d before its summary\n0 passed, 1 failed\n" "$file" "$status" >>"$log"
    [ -t 2 ] && printf "\r\033[K" >&2
    flock "$SHARDS" sh -c "printf \"\n-- %s, %d s, status %d\n\" \"\$@\"; cat \"$log\"" \
      sh "$file" "$(($(date +%s) - began))" "$status"
    [ "$status" = 0 ] || exit 1
  ' sh '{}' "$@"
status=$?

echo
sed -nE '/^(Failure|Error) -> /{s//failed: /; N; s/\n/, /; p}' "$SHARDS"/*
for log in "$SHARDS"/*; do tail -n 1 "$log"; done | awk '
  { passed += $1; failed += $3; skipped += $5 }
  END { printf "%d passed, %d failed%s\n", passed, failed, skipped ? ", " skipped " skipped" : "" }'
exit "$status"
