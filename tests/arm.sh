#!/bin/sh
# Builds the kernels for 64-bit Arm and runs their tests in an emulator: `make arm`. Everything stays in build/arm.
# Needs Debian's g++-aarch64-linux-gnu and qemu-user; downloads an Arm Python (30 MB) and its packages (60 MB) once.
set -eu

for tool in apt-get dpkg aarch64-linux-gnu-g++ qemu-aarch64; do
  command -v $tool >/dev/null || {
    echo "$tool is missing; on Debian, install g++-aarch64-linux-gnu and qemu-user and run make arm again." >&2
    exit 1
  }
done

arm=$PWD/build/arm
system=$arm/system
mkdir -p "$arm/apt"

# Python of the release that the compiler is from, unpacked beside the machine's own packages, not among them.
apt() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$arm/apt" \
    -o Dir::State::status=/dev/null -o Dir::Cache="$arm/apt" -o Debug::NoLocking=1 "$@"
}
if [ ! -e "$arm/.stamp-system" ]; then
  apt update
  apt install --yes --download-only --no-install-recommends python3-minimal libpython3-stdlib libpython3-dev libstdc++6
  for package in "$arm"/apt/archives/*.deb; do dpkg -x "$package" "$system"; done
  touch "$arm/.stamp-system"
fi
cat >"$arm/python" <<END
#!/bin/sh
PYTHONPATH="$arm/packages" exec qemu-aarch64 -L "$system" "$system/usr/bin/python3" "\$@"
END
chmod +x "$arm/python"
version=$("$arm/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

if [ ! -e "$arm/.stamp-packages" ]; then
  needed=$(.venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"])')
  PIP_CONSTRAINT=constraints.txt .venv/bin/python -m pip install -qq --disable-pip-version-check ${PIP_ARGS-} \
    --upgrade --target "$arm/packages" --only-binary :all: --python-version "$version" \
    --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 hypothesis nanobind pytest $needed
  touch "$arm/.stamp-packages"
fi

cmake -S . -B "$arm/kernels" -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_CXX_FLAGS="-isystem $system/usr/include" \
  -DPython_EXECUTABLE="$arm/python" -DPython_INCLUDE_DIR="$system/usr/include/python$version" >/dev/null
cmake --build "$arm/kernels"
rm -rf "$arm/src"
cp -r src "$arm/"
cp "$arm"/kernels/_kernels*.so "$arm/src/headrace/backends/native/"

run() {
  OMP_NUM_THREADS=1 "$arm/python" -m pytest -p no:cacheprovider -o pythonpath="build/arm/src tests" "$@"
}
has() {
  found=$(cd "$arm/src" && "$arm/python" -c 'from headrace.backends.native._kernels import instruction_sets as sets; print(*sets())')
  [ "$found" = "$1" ] || { echo "The kernels offer '$found', not '$1'." >&2; exit 1; }
}
# A processor without dot products takes the portable kernels.
export QEMU_CPU=cortex-a53
has portable
run tests/backends/native/test_executor.py
unset QEMU_CPU
has "neon portable"
# The lanes are tested by a program of their own, which `make test` builds and emulates.
run --ignore tests/backends/native/test_lanes.py tests/backends/native "$@"
