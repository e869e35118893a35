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
mkdir idle
mv calls.* idle

# Every kind of query, over blocks and over live traces.
end=$(($(date +%s) - 60))
"$built/queries" make --into "$work/blocks" --blocks 4 --spans 200000 --end "$end" >&2
single
"$built/queries" --http 127.0.0.1:3200 --end "$end" --runs 2 >&2
"$built/queries" --http 127.0.0.1:3200 --otlp 127.0.0.1:4318 --first 400 --spans 210000 --runs 2 >&2
kill "$single"
wait "$single"

# What most processes run comes first, then what the same processes run; so each has few pages that it needs not. In the end what
# queries need besides.
nm "$real" | awk '$2 ~ /^[tTwW]$/ { print $3 }' | sort -u >names
run() {
  for calls in "$@"; do
    grep -ohE '^c?fn=\([0-9]+\) .*' "$calls" | sed -E 's/^c?fn=\([0-9]+\) //' | sort -u | join - names | sed "s|\$| ${calls##*.}|"
  done | awk '{ count[$1]++; by[$1] = by[$1] "," $2 } END { for (name in count) print count[name], by[name], name }' |
    sort -k1,1nr -k2,2 -k3,3 | awk '{ print $3 }'
}
run idle/calls.* >idle.txt
run calls.* | awk 'NR == FNR { idle[$1]; next } !($1 in idle)' idle.txt - >queries.txt
cat idle.txt queries.txt >"$here/order.txt"
wc -l idle.txt queries.txt >&2
