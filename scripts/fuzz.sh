#!/usr/bin/env bash
# Runs every fuzz target for so many seconds. What makes one fail is kept in fuzz/artifacts; what it
# has learnt in fuzz/corpus, where the next run begins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:?usage: scripts/fuzz.sh SECONDS}

for target in $(cargo +nightly fuzz list); do
    options=("-max_total_time=$seconds" -print_final_stats=1)
    dictionary=$PWD/fuzz/dictionaries/$target.dict
    [ ! -e "$dictionary" ] || options+=("-dict=$dictionary")
    # No sanitizer: there is no unsafe code here for it to watch, and it halves the speed.
    cargo +nightly fuzz run --sanitizer none "$target" -- "${options[@]}"
done
