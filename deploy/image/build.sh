#!/bin/sh
# Makes the tree that the image has: PREFIX holds the program, its drivers and nothing else.
#
#     deploy/image/build.sh PREFIX [PYTHON]      PYTHON has venv and pip; PREFIX gets neither pip nor a builder
#
# The Containerfile runs it, and so do the tests, where there is no builder of images. PREFIX must not be there yet; it
# cannot be moved afterwards. What is installed is what the locks name by hash.
set -eu

prefix=${1:?where to}
python=${2:-python3}
source=$(cd "$(dirname "$0")/../.." && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
umask 022

if [ -e "$prefix" ]; then
	echo "$prefix is there already" >&2
	exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The wheel, by the builder that is locked, from a copy: the sources stay as they are.
"$python" -m venv --without-pip "$work/builder"
"$python" -m pip --python "$work/builder/bin/python" install -q --require-hashes -r "$source/requirements/build.txt"
mkdir "$work/source"
for part in pyproject.toml README.md LICENSE NOTICE clusterling; do
	cp -R "$source/$part" "$work/source/"
done
"$python" -m pip --python "$work/builder/bin/python" wheel -q --no-deps --no-build-isolation -w "$work" "$work/source"

"$python" -m venv --without-pip "$prefix"
"$python" -m pip --python "$prefix/bin/python" install -q --no-compile --require-hashes -r "$source/requirements/image.txt"
"$python" -m pip --python "$prefix/bin/python" install -q --no-compile --no-deps "$work"/clusterling-*.whl
"$python" -m pip --python "$prefix/bin/python" check

# Nothing can be compiled later, on a root that is read-only; and what is there never changes, so nobody need look.
"$prefix/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$prefix/lib"
"$prefix/bin/clusterling" version
