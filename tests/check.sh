#!/bin/sh
# check.sh - builds Westlight twice and runs its tests; the last line says how many passed.
#
#   sh tests/check.sh [--no-install]
#
# build/ is as it ships and runs every suite; build-asan/ has AddressSanitizer and UBSan and runs
# unit, sim, e2e and fuzz again. Exit code 0 only where nothing failed.
set -eu
cd "$(dirname "$0")/.."
. tests/install.sh

install=
case ${1-} in
  --no-install) install=--no-install ;;
  '') ;;
  *) echo "check.sh: $1: it takes --no-install only" >&2; exit 2 ;;
esac

finish() {
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
}

# shellcheck disable=SC2086
install_missing $install $BUILD_PACKAGES povray povray-includes povray-examples blender || finish
build_ready build -Dwerror=true -Dbuildtype=debugoptimized || finish
# Tests mostly wait: the second build takes what the first one's leave.
NICE='nice -n 19' build_ready build-asan -Dwerror=true -Dbuildtype=debugoptimized \
  -Db_sanitize=address,undefined -Db_lundef=false &
building=$!

# The simulation's seeds, and the mutants of the fuzz targets, are the commit's own.
WESTLIGHT_COMMIT=$(git rev-parse HEAD 2>/dev/null || :)
export WESTLIGHT_COMMIT

run() { # folder, suites...: meson says how it goes; what counts is in testlog.json
  folder=$1
  shift
  suites=
  for suite in "$@"; do suites="$suites --suite $suite"; done
  echo "$folder: $*"
  rm -f "$folder/meson-logs/testlog.json"
  # shellcheck disable=SC2086
  meson test -C "$folder" --no-rebuild --num-processes $((3 * $(nproc))) --print-errorlogs $suites || :
}

run build tidy unit sim e2e load fuzz
wait $building || finish
# A report of either sanitizer is a failure; the abort shows its stack.
ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  run build-asan unit sim e2e fuzz

exec python3 tests/count.py build build-asan
