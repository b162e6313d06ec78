#!/usr/bin/env bash
# Prefill and decode speed of `nfl bench` against llama.cpp's llama-bench on the same file and threads, interleaved.
# usage: benches/llama-bench.sh NFL LLAMA_BENCH FILE [ROUNDS [PROMPT [TOKENS [THREADS [DEPTH]]]]]
# Each round runs both once, each with its own warm-up, and takes turns in who goes first. Prints tokens a second of each
# round, then both medians, their ratio (nfl / llama-bench) and the least and greatest ratio of a round.
set -euo pipefail
nfl=$1 bench=$2 file=$3 rounds=${4:-7} prompt=${5:-512} tokens=${6:-128} threads=${7:-$(nproc)} depth=${8:-0}
theirs() { # two lines: prefill, decode
  "$bench" -m "$file" -p "$prompt" -n "$tokens" -d "$depth" -r 1 -t "$threads" -o csv 2>/dev/null |
    awk -F'","' 'NR==1 {gsub(/"/, ""); n=split($0, name, ","); for (i=1; i<=n; i++) if (name[i]=="avg_ts") at=i}
      NR>1 {gsub(/"/, "", $at); print $at}'
}
ours() {
  "$nfl" bench "$file" --prompt "$prompt" --tokens "$tokens" --depth "$depth" --repeat 1 --threads "$threads" --json --quiet |
    awk '/"tests"/ {exit} /"median"/ {gsub(/[ ,]/, ""); split($0, part, ":"); print part[2]}'
}
table=$(mktemp)
trap 'rm -f "$table"' EXIT
for ((round = 0; round < rounds; round++)); do
  if ((round % 2)); then a=$(ours); b=$(theirs); else b=$(theirs); a=$(ours); fi
  echo $a $b | tee -a "$table" |
    awk -v r="$round" '{printf "round %d: prefill nfl %.2f llama-bench %.2f, decode nfl %.2f llama-bench %.2f\n", r, $1, $3, $2, $4}'
done
summary() { # name, our column, their column
  median() { awk -v at="$1" '{print $at}' "$table" | sort -g | awk '{v[NR]=$1} END {print NR%2 ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }
  awk -v a="$(median "$2")" -v b="$(median "$3")" -v name="$1" -v at="$2" -v bt="$3" \
    '{r=$at/$bt; if (NR==1 || r<min) min=r; if (NR==1 || r>max) max=r}
     END {printf "%s: nfl %.2f, llama-bench %.2f, ratio %.4f (%.4f to %.4f)\n", name, a, b, a/b, min, max}' "$table"
}
summary prefill 1 3
summary decode 2 4
