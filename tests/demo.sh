#!/bin/sh
# demo.sh - renders the lighthouse, 24 frames, through a private farm of two workers, and shows them
# on one sheet.
#
#   sh tests/demo.sh [--no-install]
#
# Leaves demo-out/lighthouse.####.png and demo-out/contact-sheet.png. The farm's state lies under
# build/, so nothing of yours is touched; each run begins with an empty farm.
set -eu
cd "$(dirname "$0")/.."
. tests/install.sh

install=
case ${1-} in
  --no-install) install=--no-install ;;
  '') ;;
  *) echo "demo.sh: $1: it takes --no-install only" >&2; exit 2 ;;
esac

# shellcheck disable=SC2086
install_missing $install $BUILD_PACKAGES povray imagemagick
build_ready build -Dwerror=true -Dbuildtype=debugoptimized

state=$PWD/build/demo-state
rm -rf demo-out "$state"
mkdir -p demo-out "$state"
export WESTLIGHT_LOCAL="$state/local" XDG_STATE_HOME="$state/state" XDG_CONFIG_HOME="$state/config"

echo "rendering tests/scenes/lighthouse, frames 1-24, with two workers"
code=0
build/client/westlight render tests/scenes/lighthouse/lighthouse.pov --local --workers 2 \
  -f 1-24 --size 480x270 -p antialias=0.3 -o 'demo-out/lighthouse.####' --json \
  >"$state/summary.json" || code=$?
if [ $code != 0 ]; then
  cat "$state/summary.json"
  echo "demo.sh: not all frames are home: westlight render said $code" >&2
  exit $code
fi

montage demo-out/lighthouse.00[0-2][0-9].png -tile 6x4 -geometry 240x135+3+3 \
  -background '#101018' demo-out/contact-sheet.png

python3 - "$state/summary.json" <<'SUMMARY'
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read().strip()
# The last document is the summary; what comes before it tells of the way there.
while text:
    last, end = json.JSONDecoder().raw_decode(text)
    text = text[end:].lstrip()
print(f"frames verified   {last['frames_done']} of {last['frames_total']}")
print(f"wall time         {last['seconds']:.1f} s")
print(f"bytes             {last['bytes_sent']} sent, {last['bytes_received']} received")
print(f"rendering         {last['cpu_seconds']:.1f} CPU-seconds")
print("contact sheet     demo-out/contact-sheet.png")
SUMMARY
