#!/bin/sh
# Counts with awk: a pipeline of old, in a shell. sh train.sh DATA OUT
set -eu
data=$1 out=$2
echo "counting $(wc -l < "$data/train.csv") lines"
epoch=0
while [ "$epoch" -lt 3 ]; do
    epoch=$((epoch + 1))
    awk -F, -v limit="$epoch" 'NR > 1 { seen++; right += (($1 > limit / 2) == $NF) } END { printf "epoch %d accuracy %.3f\n", limit, right / seen }' "$data/train.csv"
done | tee "$out/log.txt"
sort -k4 -n "$out/log.txt" | tail -n 1 > "$out/best.txt"
