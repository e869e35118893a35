#!/usr/bin/env bash
# A whole cluster on this machine, for a developer: the development broker and a process for each role, on loopback, with the
# files of this folder. What a single machine needs otherwise (ports, folders, names) is set by the environment below.
#
#   configs/cluster.sh start     starts what does not run, and waits until everything is ready
#   configs/cluster.sh stop      stops everything, readers first
#   configs/cluster.sh status    says what runs and where
#
# VIVACE       the binary (default: target/release/vivace, else vivace on the PATH)
# VIVACE_DATA  folder of data, logs and process ids (default: ./data/cluster); remove it to begin anew
#
# OTLP comes in on 4317 (gRPC) and 4318 (HTTP), queries on 3200 and 9095, as in the single process. Log files: $VIVACE_DATA/*.log
set -euo pipefail

configs=$(cd "$(dirname "$0")" && pwd)
data=${VIVACE_DATA:-$PWD/data/cluster}
host=127.0.0.1
broker=$host:9092
patience=60 # seconds

vivace=${VIVACE:-}
if [ -z "$vivace" ]; then
  vivace=$configs/../target/release/vivace
  [ -x "$vivace" ] || vivace=$(command -v vivace || true)
fi

# Name, role, and the number that its ports are made from: HTTP 3200+n, gRPC 9095+n, gossip 7946+n. Who is asked stands before who
# asks: that is the order of starting, and backwards of stopping.
processes="
live-store-0 live-store 1
live-store-1 live-store 2
block-builder-0 block-builder 3
query-frontend query-frontend 0
querier querier 4
distributor distributor 5
"

die() {
  echo "$*" >&2
  exit 1
}

began() { # process id; when it began, in the kernel's ticks; nothing if it is gone, or has ended and nobody has asked how
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # Behind the program's name, which may hold anything: the state, and as the 20th field the beginning.
  stat=${stat##*) }
  case $stat in Z* | X*) return 0 ;; esac
  cut -d ' ' -f 20 <<<"$stat"
}

pid_of() { # name; nothing if it does not run
  local pid ticks
  read -r pid ticks 2>/dev/null <"$data/$1.pid" || return 0
  # The number may belong to somebody else by now.
  if [ -n "$ticks" ] && [ "$(began "$pid")" = "$ticks" ]; then echo "$pid"; fi
}

launch() { # name, command...
  local name=$1
  shift
  nohup "$@" >>"$data/$name.log" 2>&1 </dev/null &
  echo "$! $(began $!)" >"$data/$name.pid"
}

start_role() { # name role number
  local name=$1 role=$2 n=$3
  [ -z "$(pid_of "$name")" ] || return 0
  (
    export VIVACE_SERVER__HTTP_LISTEN_ADDRESS=$host VIVACE_SERVER__HTTP_LISTEN_PORT=$((3200 + n))
    export VIVACE_SERVER__GRPC_LISTEN_ADDRESS=$host VIVACE_SERVER__GRPC_LISTEN_PORT=$((9095 + n))
    export VIVACE_INGEST__KAFKA__ADDRESS=$broker
    export VIVACE_MEMBERLIST__NODE_NAME=$name VIVACE_MEMBERLIST__BIND_ADDR=$host VIVACE_MEMBERLIST__BIND_PORT=$((7946 + n))
    # The two live-stores are whom everybody asks first.
    export VIVACE_MEMBERLIST__JOIN_MEMBERS=$host:7947,$host:7948
    export VIVACE_LIVE_STORE__RING__INSTANCE_ID=$name VIVACE_LIVE_STORE__RING__INSTANCE_ADDR=$host
    export VIVACE_LIVE_STORE__WAL__PATH=$data/$name/traces VIVACE_LIVE_STORE__SHUTDOWN_MARKER_DIR=$data/$name/marker
    # One machine: nobody else is waited for.
    export VIVACE_LIVE_STORE__PARTITION_RING__MIN_PARTITION_OWNERS_DURATION=0s
    export VIVACE_BLOCK_BUILDER__INSTANCE_ID=$name
    export VIVACE_BLOCK_BUILDER__CONSUME_CYCLE_DURATION=30s
    export VIVACE_QUERIER__FRONTEND_WORKER__FRONTEND_ADDRESS=$host:9095
    export VIVACE_STORAGE__TRACE__LOCAL__PATH=$data/blocks VIVACE_STORAGE__TRACE__BLOCKLIST_POLL=10s
    # What they free after a block goes back to the system at once, not when the allocator happens to look again.
    case $role in live-store | block-builder) export MIMALLOC_PURGE_DELAY=0 ;; esac
    mkdir -p "$data/$name"
    launch "$name" "$vivace" "-config.file=$configs/$role.yaml"
  )
}

ready() { # name number
  [ -n "$(pid_of "$1")" ] || die "$1 has ended; the end of $data/$1.log:
$(tail -n 5 "$data/$1.log")"
  "$vivace" health "http://$host:$((3200 + $2))/ready" 2>/dev/null
}

writable() { # whether the distributor knows a partition to write to
  local page
  exec 3<>"/dev/tcp/$host/3205" || return 1
  printf 'GET /partition-ring HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\nConnection: close\r\n\r\n' "$host" >&3
  page=$(cat <&3)
  exec 3>&-
  [[ $page == *'"state":2'* ]]
}

start() {
  [ -x "$vivace" ] || die "there is no binary: cargo build --release, or say where it is with VIVACE=..."
  mkdir -p "$data" "$data/blocks"
  if [ -z "$(pid_of broker)" ]; then
    launch broker "$vivace" devbroker "-listen=$broker" "-data=$data/broker" -topic=vivace-traces:2
  fi
  while read -r name role n; do
    [ -z "$name" ] || start_role "$name" "$role" "$n"
  done <<<"$processes"
  local until=$((SECONDS + patience))
  while read -r name role n; do
    [ -n "$name" ] || continue
    until ready "$name" "$n"; do
      [ "$SECONDS" -lt "$until" ] || die "$name is not ready within $patience s: see $data/$name.log"
      sleep 0.1
    done
  done <<<"$processes"
  # On a new ring a distributor is ready before there is an active partition; then it refuses, and clients try again.
  until writable; do
    [ "$SECONDS" -lt "$until" ] || die "no partition is active within $patience s: see http://$host:3205/partition-ring"
    sleep 0.1
  done
  status
  echo "send traces to $host:4317 (OTLP gRPC) or $host:4318 (OTLP HTTP); ask http://$host:3200; rings: http://$host:3204/live-store/ring"
}

stop_one() { # name
  local pid
  pid=$(pid_of "$1")
  [ -n "$pid" ] || return 0
  kill -TERM "$pid"
  local until=$((SECONDS + 15))
  while [ -n "$(pid_of "$1")" ]; do
    [ "$SECONDS" -lt "$until" ] || die "$1 (process $pid) does not end: see $data/$1.log"
    sleep 0.1
  done
  rm -f "$data/$1.pid"
  echo "$1 has ended"
}

stop() {
  local names=broker
  while read -r name _; do
    [ -z "$name" ] || names="$name $names"
  done <<<"$processes"
  # The distributor first, the broker last.
  for name in $names; do stop_one "$name"; done
}

status() {
  printf '%-16s %-8s %-22s %s\n' NAME PROCESS HTTP GRPC
  printf '%-16s %-8s %-22s %s\n' broker "$(pid_of broker)" "(Kafka $broker)" ""
  while read -r name _ n; do
    [ -n "$name" ] || continue
    printf '%-16s %-8s %-22s %s\n' "$name" "$(pid_of "$name")" "http://$host:$((3200 + n))" "$host:$((9095 + n))"
  done <<<"$processes"
}

case ${1:-} in
  start | stop | status) "$1" ;;
  *) die "usage: $0 start | stop | status" ;;
esac
