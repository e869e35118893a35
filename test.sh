#!/usr/bin/env bash
# Installs what the tests need and runs them all: formatting, lints, documentation, unit and property tests, fuzzing,
# simulations, whole-process tests. Prints each stage's time and budget, and what was left out, at its end. Debian or a
# relative (apt-get), a Rust toolchain, Python 3. Root, where gossip is to be tested in network namespaces.
#
#   ./test.sh                    everything
#   ./test.sh unit process       some stages: install, lint, build, unit, process, sdk, k8s
#   ./test.sh figures [ARGS]     no test: builds the release and prints the figures of docs/proof.md with their conditions;
#                                ARGS go to the figures program, for instance --seconds 120 --rate 30000; `cluster` first: of
#                                separate processes; --check: exit code 1 if a figure misses what is asked of it
#
# CI=true          nothing may be left out: what is missing is a failure
# CARGO_TARGET_DIR=D   builds in D instead of target/
# VIVACE_LONG=H    the long form of the tests that have one, about H hours each
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=1
[ "${CI:-}" != true ] || export CARGO_INCREMENTAL=0
# Whole, because tests run in the folders of their crates.
CARGO_TARGET_DIR=$(realpath -ms "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR

# Every command selects the same packages, features and profile, or cargo would build dependencies again with other features.
# The fault injection does nothing unless a test asks for it (`panics::without_the_variable_…`); releases have none.
select=(--locked --profile ci --workspace --features vivace-node/fault-injection)

budget_minutes=35 # for all stages, of which 2 are spare
stages=("${@:-all}")
times=()
skipped=()
began=$SECONDS

stage() { # name minutes function
  if [ "${stages[0]}" != all ] && [[ " ${stages[*]} " != *" $1 "* ]]; then return 0; fi
  local from=$SECONDS
  echo "=== $1"
  "$3"
  local took=$((SECONDS - from)) over=""
  [ "$took" -le $(($2 * 60)) ] || over="  over its budget"
  times+=("$(printf '%-10s %5d s of %4d%s' "$1" "$took" $(($2 * 60)) "$over")")
}

skip() { # what is left out, and why
  if [ "${CI:-}" = true ]; then
    echo "FAILED: $1; nothing may be left out where CI=true" >&2
    exit 1
  fi
  echo "SKIPPED: $1" >&2
  skipped+=("$1")
}

packages() { # Debian packages, where that is possible
  command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ] || return 1
  apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
}

need() { # what for, command, packages...
  local what=$1 command=$2
  shift 2
  command -v "$command" >/dev/null 2>&1 && return 0
  packages "$@" || true
  command -v "$command" >/dev/null 2>&1 && return 0
  skip "$what: $command is missing (Debian: $*)"
  return 1
}

python_tests="tests with the OpenTelemetry SDK, pyarrow, proxies and Kubernetes schemas"
python_packages=(integration/sdk/requirements.txt integration/s3/requirements.txt k8s/tests/requirements.txt)

install() {
  need "everything that is compiled" cc gcc libc6-dev || true
  need "everything that is compiled" make make || true
  need "what the kernel sees of an acknowledgement" strace strace || true
  need "a try by hand" curl curl || true
  need "the development broker as kcat sees it" kcat kcat || true
  need "gossip in network namespaces" ip iproute2 || true
  need "gossip in network namespaces" nft nftables || true
  need "names from a real name server" dnsmasq dnsmasq-base || true
  need "steps of the clock" faketime faketime || true
  need "pages in a browser" chromium chromium || true
  if need "$python_tests" python3 python3 python3-venv; then python_environment; fi
  need "a real nginx before a live-store" nginx nginx-light || true
  need "a cluster of pods under TLS" openssl openssl || true
  kustomize || true
  kafka || true
  cargo fetch --locked
}

# Real Apache Kafka: its jars, with what they need, as Maven resolves them; kept between runs.
kafka() {
  local version jars
  version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' integration/kafka/pom.xml)
  jars=$CARGO_TARGET_DIR/kafka-$version
  need "the log on real Apache Kafka" java openjdk-17-jre-headless || return 1
  if [ -f "$jars/kafka-server-$version.jar" ]; then return 0; fi
  need "the log on real Apache Kafka" mvn maven || return 1
  rm -rf "$jars" "$jars.new"
  if mvn -q -B -f integration/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$jars.new"; then
    mv "$jars.new" "$jars"
    return 0
  fi
  rm -rf "$jars.new"
  skip "the log on real Apache Kafka: Maven could not fetch Kafka $version"
  return 1
}

python_environment() {
  if [ -x .venv/bin/pytest ] && cat "${python_packages[@]}" | cmp -s - .venv/requirements.txt; then return 0; fi
  rm -rf .venv
  if ! python3 -m venv .venv; then
    rm -rf .venv
    packages python3-venv python3-pip || true
    if ! python3 -m venv .venv; then
      rm -rf .venv
      skip "$python_tests: python3 makes no virtual environment (Debian: python3-venv)"
      return 0
    fi
  fi
  if ! .venv/bin/pip install --quiet --disable-pip-version-check "${python_packages[@]/#/-r}"; then
    skip "$python_tests: pip could not install ${python_packages[*]}"
    return 0
  fi
  cat "${python_packages[@]}" >.venv/requirements.txt
}

# What renders the manifests: a kubectl with kustomize 5 (1.27 or later), or kustomize itself, which Go can build.
kustomize() {
  if kubectl version --client 2>/dev/null | grep -q 'Kustomize Version: v5[.]'; then return 0; fi
  if [ -x .venv/bin/kustomize ] || type -P kustomize >/dev/null; then return 0; fi
  if [ -d .venv ] && type -P go >/dev/null && GOBIN="$PWD/.venv/bin" go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1; then
    return 0
  fi
  skip "manifests: neither kubectl (1.27 or later) nor kustomize is here, nor Go to build it"
  return 1
}

lint() {
  cargo fmt --all --check
  # As it is shipped, and as it is tested.
  cargo clippy --locked --profile ci --workspace --all-targets -- -D warnings
  cargo clippy "${select[@]}" --all-targets -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc "${select[@]}" --no-deps --quiet
}

# The binary and all tests at once: `--tests` makes cargo count the features that only tests ask for, as in the next stages.
build() {
  cargo build "${select[@]}" --bins --tests
}

unit() {
  cargo test "${select[@]}" --lib --bins
  cargo test "${select[@]}" --doc
}

process() {
  build
  cargo test "${select[@]}" --test '*'
}

sdk() {
  build
  if [ ! -x .venv/bin/pytest ]; then
    skip "$python_tests: .venv is missing (./test.sh install)"
    return 0
  fi
  VIVACE_BIN="$CARGO_TARGET_DIR/ci/vivace" .venv/bin/pytest -q -p no:cacheprovider integration/sdk
}

k8s() {
  build
  if [ ! -x .venv/bin/pytest ] || ! type -P nginx >/dev/null || ! kustomize; then
    skip "manifests and proxies: something is missing (./test.sh install)"
    return 0
  fi
  VIVACE_BIN="$CARGO_TARGET_DIR/ci/vivace" .venv/bin/pytest -q -p no:cacheprovider k8s/tests
}

if [ "${stages[0]}" = figures ]; then
  # The binary alone, as it is built for use: with other crates in the same build its functions have other names (node/link).
  cargo build --locked --release
  cp "$CARGO_TARGET_DIR/release/vivace" "$CARGO_TARGET_DIR/figures-vivace"
  cargo build --locked --release -p vivace-integration --bins
  VIVACE_BIN=$CARGO_TARGET_DIR/figures-vivace
  export VIVACE_BIN
  exec "$CARGO_TARGET_DIR/release/figures" "${@:2}"
fi
for name in "${stages[@]}"; do
  case $name in
    all | install | lint | build | unit | process | sdk | k8s) ;;
    *) echo "there is no stage $name; there are: all, install, lint, build, unit, process, sdk, k8s, figures" >&2 && exit 2 ;;
  esac
done

# Tests that leave something out add a line.
VIVACE_SKIPPED=$(mktemp)
export VIVACE_SKIPPED
trap 'rm -f "$VIVACE_SKIPPED"' EXIT

stage install 6 install
stage lint 6 lint
stage build 4 build
stage unit 7 unit
stage process 9 process
stage sdk 1 sdk
stage k8s 1 k8s

echo "=== times"
printf '%s\n' "${times[@]}"
total=$((SECONDS - began))
printf 'all stages passed in %d s of %d (%d minutes)\n' "$total" $((budget_minutes * 60)) "$budget_minutes"
while read -r line; do skipped+=("${line#SKIPPED }"); done <"$VIVACE_SKIPPED"
if [ "${#skipped[@]}" -gt 0 ]; then
  echo "=== LEFT OUT: ${#skipped[@]}"
  printf '  %s\n' "${skipped[@]}"
fi
