#!/bin/sh
# Unpacks the Python sources of some Debian 12 packages into a folder, without installing them: the text that
# the embedded model's gates were trained on. Usage: scripts/training_text.sh FOLDER
set -eu
[ $# -eq 1 ] || { echo "usage: scripts/training_text.sh FOLDER" >&2; exit 2; }
packages="python3-django python3-matplotlib python3-nltk python3-numpy python3-pandas python3-scipy
python3-sklearn python3-sqlalchemy python3-sympy python3-twisted"
mkdir -p "$1"
folder=$(cd "$1" && pwd)
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
cd "$unpacked"
# shellcheck disable=SC2086
apt-get -o APT::Sandbox::User=root download -q $packages >/dev/null
for package in *.deb; do
  dpkg -x "$package" root
done
for name in django matplotlib nltk numpy pandas scipy sklearn sqlalchemy sympy twisted; do
  rm -rf "${folder:?}/$name"
  mv "root/usr/lib/python3/dist-packages/$name" "$folder/"
done
