#!/bin/sh
# Packs the program, the tests of the GPU and the libraries that a machine may lack into one archive that runs wherever
# a driver is. The C and C++ libraries are the machine's own: as new as those here, or newer.
# Usage: scripts/make_bundle.sh BUILD_FOLDER ARCHIVE.tar.xz
set -eu
[ $# -eq 2 ] || { echo "usage: scripts/make_bundle.sh BUILD_FOLDER ARCHIVE.tar.xz" >&2; exit 2; }
build=$1
archive=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/lib"
for program in apps/seer/seer tests/cuda/cuda_test; do
  strip -o "$folder/$(basename "$program")" "$build/$program"
  ldd "$build/$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
    grep -Ev '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so' |
    while read -r library; do
      strip -o "$folder/lib/$(basename "$library")" "$library"
    done
done
# The programs share the kernels: a dictionary as large as both finds them.
XZ_OPT=-9e tar -C "$folder" -cJf "$archive" .
echo "$archive: $(du -h "$archive" | cut -f1)"
