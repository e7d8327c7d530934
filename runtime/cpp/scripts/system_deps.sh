#!/usr/bin/env bash
# The Debian and Ubuntu packages that the C++ runtime is built with.
#   system_deps.sh           install those that are missing
#   system_deps.sh --check   print those that are missing, and fail where there are any
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config          # building
  libssl-dev nlohmann-json3-dev             # the library
  libavformat-dev libavcodec-dev libavfilter-dev libavutil-dev # its video part
  libcli11-dev libgtest-dev                 # tools and tests
  libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler # examples/grpc_service
  clang                                     # fuzz targets
  dpkg-dev file                             # the .deb
)

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ "${1:-}" = --check ]; then
  [ ${#missing[@]} = 0 ] || { echo "${missing[*]}"; exit 1; }
elif [ ${#missing[@]} != 0 ]; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
