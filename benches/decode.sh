#!/usr/bin/env bash
# Decode speed of nfl against llama.cpp's llama-bench on the same file and threads, interleaved.
# usage: benches/decode.sh NFL LLAMA_BENCH FILE [ROUNDS [TOKENS [THREADS]]]
# Prints tokens a second of each round, then both medians and their ratio (nfl / llama-bench).
set -euo pipefail
nfl=$1 bench=$2 file=$3 rounds=${4:-9} tokens=${5:-48} threads=${6:-$(nproc)}
a=() b=()
median() { printf '%s\n' "$@" | sort -g | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'; }
for ((round = 0; round < rounds; round++)); do
  theirs=$("$bench" -m "$file" -p 0 -n "$tokens" -r 1 -t "$threads" -o csv 2>/dev/null |
    awk -F'","' 'NR==1 {gsub(/"/, ""); n=split($0, name, ","); for (i=1; i<=n; i++) if (name[i]=="avg_ts") at=i} NR==2 {gsub(/"/, "", $at); print $at}')
  ours=$("$nfl" run "$file" "Once upon" --raw --temperature 0 --ignore-eos --tokens "$((tokens + 1))" \
    --threads "$threads" --verbose 2>&1 >/dev/null | awk '/^decode/ {for (i=1; i<=NF; i++) if ($i ~ /^tokens\/s/) print $(i-1)}')
  echo "round $round: nfl $ours, llama-bench $theirs"
  a+=("$ours") b+=("$theirs")
done
ours=$(median "${a[@]}") theirs=$(median "${b[@]}")
echo "median: nfl $ours, llama-bench $theirs, ratio $(awk -v a="$ours" -v b="$theirs" 'BEGIN {printf "%.4f", a / b}')"
