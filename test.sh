#!/usr/bin/env bash
# Installs what the tests need and runs them all: formatting, lints, documentation, unit and property tests, simulations,
# whole-process tests. Prints each stage's time at its end. Debian or a relative (apt-get), a Rust toolchain, Python 3.
#
#   ./test.sh            everything
#   ./test.sh unit       one stage: install, lint, unit, process, sdk
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
[ "${CI:-}" = true ] || export CARGO_INCREMENTAL=1
stages=("${@:-all}")
times=()
budget=$SECONDS

stage() { # name minutes function
  if [ "${stages[0]}" != all ] && [[ " ${stages[*]} " != *" $1 "* ]]; then return 0; fi
  local from=$SECONDS
  echo "=== $1"
  "$3"
  times+=("$(printf '%-10s %5d s of %d' "$1" $((SECONDS - from)) $(($2 * 60)))")
}

need() { # command package...
  command -v "$1" >/dev/null 2>&1 && return 0
  shift
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
  else
    echo "missing: please install $*" >&2
    return 1
  fi
}

install() {
  need cc gcc libc6-dev
  need make make
  need strace strace
  need curl curl
  need python3 python3 python3-venv
  if [ ! -x .venv/bin/pytest ] || ! cmp -s integration/sdk/requirements.txt .venv/requirements.txt; then
    rm -rf .venv
    python3 -m venv .venv || { need pip3 python3-venv python3-pip && python3 -m venv .venv; }
    .venv/bin/pip install --quiet --disable-pip-version-check -r integration/sdk/requirements.txt
    cp integration/sdk/requirements.txt .venv/requirements.txt
  fi
  cargo fetch --locked
}

lint() {
  cargo fmt --all --check
  cargo clippy --locked --profile ci --workspace --all-targets -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --profile ci --workspace --no-deps --quiet
}

unit() {
  cargo test --locked --profile ci --workspace --exclude vivace-integration
}

process() {
  cargo build --locked --profile ci -p vivace-node
  cargo test --locked --profile ci -p vivace-integration
}

sdk() {
  cargo build --locked --profile ci -p vivace-node
  VIVACE_BIN="$PWD/target/ci/vivace" .venv/bin/pytest -q -p no:cacheprovider integration/sdk
}

stage install 6 install
stage lint 10 lint
stage unit 7 unit
stage process 8 process
stage sdk 2 sdk
echo "=== times"
printf '%s\n' "${times[@]}"
echo "all stages passed in $((SECONDS - budget)) s"
