# install.sh - read by check.sh and demo.sh: what they need of Debian 12, and how they build.
#
#   install_missing [--no-install] PACKAGE...   says what is missing and installs it with apt
#   build_ready FOLDER [MESON OPTION...]        sets FOLDER up where it is not, and builds it
#
# apt is called only where something is missing, so a machine that has everything needs no network
# and no root.

BUILD_PACKAGES="meson ninja-build pkg-config gcc libc6-dev libzmq3-dev libprotobuf-c-dev
  protobuf-c-compiler libssl-dev libsqlite3-dev libzstd-dev libpng-dev libopenexr-dev libcmocka-dev
  libjansson-dev python3 binutils groff-base"

package_missing() {
  state=$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)
  [ "$state" != installed ]
}

# What a package is wanted for may be there without the package (a Python or gcc of one's own).
program_of() {
  case $1 in
    meson | gcc | povray | blender | python3) echo "$1" ;;
    ninja-build) echo ninja ;;
    pkg-config) echo pkg-config ;;
    binutils) echo nm ;;
    groff-base) echo groff ;;
    protobuf-c-compiler) echo protoc-c ;;
    imagemagick) echo montage ;;
  esac
}

install_missing() {
  wanted=yes
  if [ "$1" = --no-install ]; then
    wanted=no
    shift
  fi
  missing=
  for package in "$@"; do
    program=$(program_of "$package")
    if [ -n "$program" ] && command -v "$program" >/dev/null 2>&1; then
      continue
    fi
    if package_missing "$package"; then missing="$missing $package"; fi
  done
  if [ -z "$missing" ]; then
    echo "packages: all $# are there"
    return 0
  fi
  if [ $wanted = no ]; then
    echo "packages: missing, and not installed (--no-install):$missing"
    return 0
  fi
  echo "packages: installing with apt (--no-install skips this):$missing"
  as_root=
  if [ "$(id -u)" != 0 ]; then as_root=sudo; fi
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "packages: there is no apt-get here: install them by hand, then use --no-install" >&2
    return 1
  fi
  $as_root apt-get -q update || return 1
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive $as_root apt-get -q install -y --no-install-recommends $missing
}

NICE= # a word before what builds
build_ready() {
  folder=$1
  shift
  if [ ! -f "$folder/build.ninja" ]; then
    $NICE meson setup "$folder" "$@" >"$folder.setup.log" 2>&1 || {
      cat "$folder.setup.log"
      rm -f "$folder.setup.log"
      echo "$folder: meson could not set it up" >&2
      return 1
    }
    rm -f "$folder.setup.log"
  fi
  if ! $NICE ninja -C "$folder" >"$folder/build.log" 2>&1; then
    tail -n 60 "$folder/build.log"
    echo "$folder: it does not build: all of it is in $folder/build.log" >&2
    return 1
  fi
  echo "$folder: built"
}
