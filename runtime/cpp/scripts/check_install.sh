#!/usr/bin/env bash
# The library as others take it up:  check_install.sh BUILD BUNDLE VIDEO WORK
# BUILD is a shared build of this project, WORK a folder that is made anew. By find_package, by pkg-config (C11, C++17),
# as a .deb, as an archive, by FetchContent as a static library, and that one installed.
set -euo pipefail
build=$(realpath "$1") bundle=$(realpath "$2") video=$(realpath "$3")
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rm -rf "$4"
mkdir -p "$4"
work=$(realpath "$4")
jobs=${CPP_JOBS:-2}

say() { echo "== $*"; }
cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }

# ONNX Runtime as this build has it.
onnxruntime=()
for name in ONNXRUNTIME_ROOT ONNXRUNTIME_WHEEL onnxruntime_DIR; do
  value=$(cached $name)
  [ -z "$value" ] || [[ $value == *-NOTFOUND ]] || onnxruntime+=("-D$name=$value")
done
engine=$(ldd "$build/libvtr_runtime.so" | sed -n 's/^\tlibonnxruntime[^ ]* => \(\/[^ ]*\).*/\1/p')
[ -n "$engine" ] || { echo "libvtr_runtime.so finds no libonnxruntime; build it first"; exit 1; }

runs() { # runs FOLDER: the two programs in it
  "$1/minimal" "$bundle" "a dog runs" "$video"
  "$1/plain" "$bundle" "a dog runs"
}
library_of() { dirname "$(find "$1" -name "$2" | head -n 1)"; }
with_pkg_config() { # with_pkg_config LIBDIR OUT
  local flags
  mkdir -p "$2"
  flags=$(PKG_CONFIG_PATH=$1/pkgconfig pkg-config --cflags --libs vtr_runtime)
  # The words of $flags are options of their own.
  # shellcheck disable=SC2086
  "${CXX:-c++}" -std=c++17 "$source/examples/minimal.cc" -o "$2/minimal" -L"$work/engine" $flags \
    -Wl,-rpath,"$1:$work/engine"
  # shellcheck disable=SC2086
  "${CC:-cc}" -std=c11 -Wall -Wextra -Wpedantic -Werror "$source/tests/install/plain.c" -o "$2/plain" -L"$work/engine" \
    $flags -lm -Wl,-rpath,"$1:$work/engine"
}

mkdir "$work/engine"
ln -s "$engine" "$work/engine/libonnxruntime.so.1"
ln -s "$engine" "$work/engine/libonnxruntime.so"

say "install"
cmake --install "$build" --prefix "$work/prefix" > "$work/install.log"
libdir=$(library_of "$work/prefix" libvtr_runtime.so)
# As docs/cpp.md has it: ONNX Runtime's library beside this one.
ln -s "$engine" "$libdir/libonnxruntime.so.1"

say "exported symbols"
if nm -D --defined-only "$libdir/libvtr_runtime.so" | grep -v -E ' T vtr_[a-z_]+@@VTR_1$| A VTR_1$'; then
  echo "libvtr_runtime.so exports more than the C interface"
  exit 1
fi
if objdump -T "$libdir/libvtr_runtime.so" | grep 'VERS_'; then
  echo "libvtr_runtime.so runs with one version of ONNX Runtime alone"
  exit 1
fi

say "find_package"
cmake -S "$source/tests/install" -B "$work/by_package" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" > "$work/package.log"
cmake --build "$work/by_package" -j "$jobs"
runs "$work/by_package"

say "pkg-config"
with_pkg_config "$libdir" "$work/by_pkg_config"
runs "$work/by_pkg_config"

say "packages"
(cd "$build" && cpack -G "TGZ;DEB" -B "$work/packages" > "$work/cpack.log")
deb=$(echo "$work"/packages/*.deb)
dpkg-deb --field "$deb" Package Version Depends
dpkg-deb -x "$deb" "$work/deb"
mkdir "$work/archive"
tar -C "$work/archive" --strip-components=1 -xzf "$work"/packages/*.tar.gz
for tree in "$work/deb/usr" "$work/archive"; do
  LD_LIBRARY_PATH=$(library_of "$tree" libvtr_runtime.so):$work/engine runs "$work/by_pkg_config"
  if [ -x "$tree/bin/vtr-embed" ]; then
    LD_LIBRARY_PATH=$work/engine "$tree/bin/vtr-embed" "$bundle" --text "a dog runs" > "$work/embedded.jsonl"
    cut -c 1-80 "$work/embedded.jsonl"
  fi
done

say "FetchContent, static"
cmake -S "$source/tests/install" -B "$work/by_fetch" -G Ninja -DFETCH="$source" -DBUILD_SHARED_LIBS=OFF \
  -DVTR_INSTALL=ON -DCMAKE_BUILD_TYPE=Release "${onnxruntime[@]}" > "$work/fetch.log"
cmake --build "$work/by_fetch" -j "$jobs"
runs "$work/by_fetch"

say "static, installed"
cmake --install "$work/by_fetch" --prefix "$work/static" > "$work/install_static.log"
cmake -S "$source/tests/install" -B "$work/by_static" -G Ninja -DCMAKE_PREFIX_PATH="$work/static" "${onnxruntime[@]}" \
  > "$work/static.log"
cmake --build "$work/by_static" -j "$jobs"
runs "$work/by_static"
with_pkg_config "$(library_of "$work/static" libvtr_runtime.a)" "$work/by_pkg_config_static"
runs "$work/by_pkg_config_static"

say "all of them work"
