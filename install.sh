#!/usr/bin/env bash
# Sets up nfl on Linux or macOS: finds or installs what the build needs, builds for this machine's CPU, installs the
# binary for this user and runs the main job (convert a checkpoint, hear it talk).
#
#   ./install.sh [CHECKPOINT]   set up, install, convert CHECKPOINT and let it speak
#   ./install.sh vulkan         build the back-end for GPUs by way of Vulkan, and install it for this user
#   ./install.sh cuda           build the back-end for NVIDIA's GPUs, and install it for this user
#   ./install.sh test           set up, then formatting, lints and the whole test suite
#   ./install.sh test-vulkan    compute with Vulkan in software: about 10 minutes of one core, once
#   ./install.sh --help
#
# NFL_BACKENDS, NFL_CUDA_ARCHITECTURES: where back-ends go (else where nfl looks for them); what CUDA is built for.
# NFL_BIN_DIR, NFL_LEVEL, NFL_OUTPUT, NFL_PROMPT: where the binary goes; what the main job makes, where, and says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

RUST_MIN=1.95
BIN_DIR=${NFL_BIN_DIR:-${XDG_BIN_HOME:-$HOME/.local/bin}}
# Outside the clone, so that a second clone does not build llama.cpp's C++ again. One profile for all commands.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/nfl/build}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

say() { printf '%s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$1" >&2; [ -z "${2:-}" ] || printf '\nhint: %s\n' "$2" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# Runs a command as root: directly when we are root, else with sudo, which may ask for the password.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo; then sudo "$@"
  else return 1
  fi
}

package_manager() {
  for manager in apt-get dnf pacman zypper brew; do
    if have "$manager"; then echo "$manager"; return; fi
  done
}

# The package of a tool, by package manager.
package_of() {
  case "$1:$2" in
    apt-get:compiler) echo "gcc g++ make" ;;
    apt-get:libclang) echo "clang libclang-dev" ;;
    dnf:compiler) echo "gcc gcc-c++ make" ;;
    dnf:libclang) echo "clang clang-devel" ;;
    zypper:compiler) echo "gcc gcc-c++ make" ;;
    zypper:libclang) echo "clang clang-devel" ;;
    pacman:compiler) echo "gcc make" ;;
    pacman:libclang) echo "clang" ;;
    brew:libclang) echo "llvm" ;;
    brew:compiler) echo "" ;;
    *:cmake) echo "cmake" ;;
    *:curl) echo "curl" ;;
    *) echo "" ;;
  esac
}

install_packages() {
  local manager=$1; shift
  case "$manager" in
    apt-get) as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -q --no-install-recommends "$@" ;;
    dnf) as_root dnf install -y "$@" ;;
    pacman) as_root pacman -S --needed --noconfirm "$@" ;;
    zypper) as_root zypper --non-interactive install "$@" ;;
    brew) brew install "$@" ;;
    *) return 1 ;;
  esac
}

# bindgen needs libclang and clang's own headers.
have_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] && return 0
  if [ "$(uname)" = Darwin ]; then xcode-select -p >/dev/null 2>&1 || [ -d "$(brew --prefix llvm 2>/dev/null)/lib" ]; return; fi
  # Not libclang-cpp, the C++ interface that LLVM's tools bring along: bindgen cannot use it.
  { ldconfig -p 2>/dev/null | awk '{ print $NF }'
    compgen -G '/usr/lib*/llvm*/lib/libclang*.so*'
    compgen -G '/usr/lib*/libclang*.so*'
    compgen -G '/usr/lib/*-linux-gnu/libclang*.so*' || true
  } | grep -E '/libclang(-[0-9.]+)?\.so' >/dev/null
}

set_up_packages() {
  local missing=()
  { have cc && have c++ && have make; } || missing+=(compiler)
  have cmake || missing+=(cmake)
  have_libclang || missing+=(libclang)
  { have cargo || have curl; } || missing+=(curl)
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(uname)" = Darwin ] && ! xcode-select -p >/dev/null 2>&1; then
    fail "Apple's command line tools are missing" "run: xcode-select --install, then ./install.sh again"
  fi
  local manager packages=()
  manager=$(package_manager)
  for tool in "${missing[@]}"; do read -r -a names <<<"$(package_of "$manager" "$tool")"; packages+=(${names[@]+"${names[@]}"}); done
  say "nfl needs ${missing[*]}; installing with ${manager:-(no package manager found)}: ${packages[*]:-}"
  if [ -z "$manager" ] || ! install_packages "$manager" "${packages[@]}"; then
    fail "could not install what the build needs: ${missing[*]}" \
      "install a C and C++ compiler, make, cmake and libclang with your system's package manager, then run ./install.sh again"
  fi
}

# Rust, by rustup when the machine has none.
set_up_rust() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  if ! have cargo; then
    say "nfl needs Rust $RUST_MIN or newer; installing it for this user with rustup"
    if have rustup-init; then rustup-init -y --profile minimal -c rustfmt -c clippy
    else curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy
    fi || fail "could not install Rust" "see https://rustup.rs, then run ./install.sh again"
    . "$HOME/.cargo/env"
  fi
  local version
  version=$(rustc --version | awk '{print $2}')
  if ! at_least "$version" "$RUST_MIN"; then
    have rustup && rustup update stable
    version=$(rustc --version | awk '{print $2}')
    at_least "$version" "$RUST_MIN" || fail "Rust $version is too old: nfl needs $RUST_MIN" "run: rustup update stable"
  fi
}

build() {
  say "building for this machine's CPU (llama.cpp's C++ takes some minutes the first time) in $CARGO_TARGET_DIR"
  local features=()
  # Apple's GPUs need no driver of their own, so their back-end is built in.
  [ "$(uname)" != Darwin ] || features=(--features metal)
  cargo build --release --locked ${features[@]+"${features[@]}"}
}

install_binary() {
  mkdir -p "$BIN_DIR"
  # Beside its final name and renamed: a running nfl keeps its old file, and an interrupted copy replaces nothing.
  cp "$CARGO_TARGET_DIR/release/nfl" "$BIN_DIR/.nfl.new"
  mv -f "$BIN_DIR/.nfl.new" "$BIN_DIR/nfl"
  say "installed $BIN_DIR/nfl"
  case ":$PATH:" in *":$BIN_DIR:"*) ;; *) say "note: $BIN_DIR is not on your PATH" ;; esac
}

main_job() {
  local checkpoint=${1:-} output
  if [ -z "$checkpoint" ]; then
    say "
nfl is ready. Give it a trained checkpoint (a Hugging Face directory with config.json and *.safetensors):

  ./install.sh CHECKPOINT               convert it and let it speak
  nfl convert CHECKPOINT --level q4_k_m --output .
  nfl --help"
    return
  fi
  [ -d "$checkpoint" ] || fail "no such directory: $checkpoint" "give a Hugging Face checkpoint directory"
  output=${NFL_OUTPUT:-$PWD}
  "$BIN_DIR/nfl" convert "$checkpoint" --level "${NFL_LEVEL:-q8_0}" --output "$output" --overwrite
  "$BIN_DIR/nfl" run "$output/$(basename "$(cd "$checkpoint" && pwd)")-$(printf '%s' "${NFL_LEVEL:-q8_0}" | tr '[:lower:]' '[:upper:]').gguf" \
    "${NFL_PROMPT:-Once upon a time}" --tokens 60
}

run_tests() {
  # The same on every machine: modules of this user stay out.
  export NFL_BACKENDS=none
  cargo fmt --all --check
  cargo clippy --release --locked --workspace --all-targets -- -D warnings
  if have cargo-deny; then cargo deny --offline check bans licenses sources; fi
  # Not all at once: a test-only dependency of nfl-models changes a feature of serde_json that the shipped binary lacks.
  cargo test --release --locked -p nfl -p nfl-converters
  cargo test --release --locked -p nfl-models
}

. assets/backends/build.sh

case "${1:-}" in
  -h|--help) sed -n '2,15s/^# \{0,1\}//p' "$0" ;;
  test) set_up_packages; set_up_rust; run_tests ;;
  vulkan) set_up_packages; set_up_rust; build_vulkan ;;
  cuda) set_up_packages; set_up_rust; build_cuda ;;
  test-vulkan) set_up_packages; set_up_rust; test_vulkan ;;
  -*) fail "unknown option: $1" "see ./install.sh --help" ;;
  *) set_up_packages; set_up_rust; build; install_binary; main_job "${1:-}" ;;
esac
