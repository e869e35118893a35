#!/usr/bin/env bash
# Writes order.txt anew: the functions that idle processes run, of a single process and of each role, and behind them those that take spans
# in and answer queries. Needs valgrind and the ports of configs/cluster.sh. See README.md beside it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'VIVACE=$work/vivace VIVACE_DATA=$work/data "$root/configs/cluster.sh" stop >&2 || true; rm -rf "$work"' EXIT

# The same profile as for use, or the names would not be the same; only the symbols are kept.
(cd "$root" && VIVACE_KEEP_SYMBOLS=1 cargo build --locked --release)
built=${CARGO_TARGET_DIR:-$root/target}/release
real=$work/real
cp "$built/vivace" "$real"
(cd "$root" && cargo build --locked --release -p vivace-integration --bin queries)

# What tools ask of it (`vivace health`) is no process of a role, and would only take time.
cat >"$work/vivace" <<EOF
#!/usr/bin/env bash
case \$1 in
-config.file=*) exec valgrind --tool=callgrind --demangle=no --callgrind-out-file=$work/calls.\$\$ "$real" "\$@" ;;
*) exec "$real" "\$@" ;;
esac
EOF
chmod +x "$work/vivace"

VIVACE=$work/vivace VIVACE_DATA=$work/data "$root/configs/cluster.sh" start >&2
# What only happens now and then, such as a look at the bucket, belongs to idleness.
sleep 40
VIVACE=$work/vivace VIVACE_DATA=$work/data "$root/configs/cluster.sh" stop >&2

cd "$work"
export VIVACE_LIVE_STORE__WAL__PATH=$work/wal VIVACE_STORAGE__TRACE__LOCAL__PATH=$work/blocks
single() {
  "$work/vivace" "-config.file=$root/configs/monolithic.yaml" >&2 &
  single=$!
  until "$real" health; do
    # It may have ended instead, and then never is.
    kill -0 "$single"
    sleep 0.5
  done
}
single
sleep 40
kill "$single"
wait "$single"
idle=$single
mkdir idle
mv calls.* idle

# Every kind of query, over a block of several row groups, over several blocks and over live traces.
end=$(($(date +%s) - 60))
"$built/queries" make --into "$work/blocks" --blocks 1 --spans 600000 --end "$end" >&2
single
"$built/queries" --http 127.0.0.1:3200 --end "$end" --runs 2 >&2
# With the headers of other clients.
curl --silent --fail --output "$work/answer" 'http://127.0.0.1:3200/api/search?q=%7B%7D'
"$built/queries" make --into "$work/blocks" --blocks 4 --spans 40000 --seed 2 --end "$end" >&2
kill "$single"
wait "$single"
single
"$built/queries" --http 127.0.0.1:3200 --end "$end" --runs 2 >&2
"$built/queries" --http 127.0.0.1:3200 --otlp 127.0.0.1:4318 --first 1200 --spans 610000 --runs 2 >&2
kill "$single"
wait "$single"

# Which processes run a function: how many, which, its name. What most run comes first, then what the same processes run; so each
# has few pages that it needs not.
nm "$real" | awk '$2 ~ /^[tTwW]$/ { print $3 }' | sort -u >names
runs() {
  for calls in "$@"; do
    grep -ohE '^c?fn=\([0-9]+\) .*' "$calls" | sed -E 's/^c?fn=\([0-9]+\) //' | sort -u | join - names | sed "s|\$| ${calls##*.}|"
  done | awk '{ count[$1]++; by[$1] = by[$1] "," $2 } END { for (name in count) print count[name], by[name], name }' |
    sort -k1,1nr -k2,2 -k3,3
}
runs idle/calls.* >idle.txt
# The processor that valgrind shows lacks some instructions; what is there for those is taken in by its name.
{
  runs calls.* | awk '{ print $3 }'
  grep -iE '^(_?zstd|_?huf|_zn.*(memchr|aho_corasick|crc|sha2).*)' names | grep -iE 'avx|bmi2|pclmul|evex|shani|asm_loop'
} | awk -v single=",$idle" 'NR == FNR { known[$3] = index($2 ",", single ","); next } !known[$1]++ { print $1 }' idle.txt - >queries.txt
# What queries need besides, other roles at rest or not, stands between what rehearsals of queries run, and so comes into memory with it.
rehearse=$(grep -l rehearse idle/calls.* | sed 's/.*\./,/' | tr -d '\n')
awk -v by="$rehearse" '
  NR == FNR { query[NR] = $1; queries = NR; later[$1]; next }
  $3 in later { next }
  { name[++all] = $3; rehearsed += between[all] = $2 == by }
  END {
    for (place = 1; place <= all; place++) {
      print name[place]
      passed += between[place]
      while (between[place] && given * rehearsed < queries * passed) print query[++given]
    }
    while (given < queries) print query[++given]
  }' queries.txt idle.txt >"$here/order.txt"
wc -l idle.txt queries.txt >&2
