# Builds back-end modules; sourced by install.sh, whose say, fail, have, package_manager and install_packages it uses.
#
# A module is made from the sources of ggml that the pinned bindings bring along, so that program and module fit.

data_home() {
  if [ -n "${NFL_HOME:-}" ]; then printf '%s\n' "$NFL_HOME"
  elif [ "$(uname)" = Darwin ]; then printf '%s\n' "$HOME/Library/Application Support/nfl"
  else printf '%s\n' "${XDG_DATA_HOME:-$HOME/.local/share}/nfl"
  fi
}

# The pinned bindings as NAME-VERSION: the name of the folder of modules, and the stamp inside them.
bindings() { awk -F'"' '/^name = "llama-cpp-sys-2"/ { found = 1 } found && /^version/ { print "llama-cpp-sys-2-" $2; exit }' Cargo.lock; }

# The folder ggml in the sources of the bindings, wherever cargo keeps them.
ggml_sources() {
  local manifest
  cargo fetch --locked --quiet || return 1
  manifest=$(cargo metadata --format-version 1 --locked --offline |
    sed -n 's/.*"manifest_path":"\([^"]*\/llama-cpp-sys-2[^"/]*\/Cargo\.toml\)".*/\1/p')
  [ -n "$manifest" ] && printf '%s\n' "$(dirname "$manifest")/llama.cpp/ggml"
}

# build_module BACKEND CMAKE-OPTION…: configures, builds, and puts the module where nfl looks for it.
build_module() {
  local backend=$1 stamp sources build target jobs
  shift
  stamp=$(bindings)
  sources=$(ggml_sources) || fail "the sources of $stamp are not there" "check the network, then run the command again"
  build=${XDG_CACHE_HOME:-$HOME/.cache}/nfl/backends/$stamp-$backend
  target=${NFL_BACKENDS:-$(data_home)/backends/$stamp}
  [ "$target" != none ] || fail "NFL_BACKENDS=none switches modules off" "unset it, or name a folder"
  jobs=${NFL_JOBS:-$(getconf _NPROCESSORS_ONLN)}
  mkdir -p "$(dirname "$build")"
  # Options of an earlier run must not live on in CMake's cache.
  rm -f "$build/CMakeCache.txt"
  cmake -S assets/backends -B "$build" -DCMAKE_BUILD_TYPE=Release \
    -DBACKEND="$backend" -DGGML_SOURCES="$sources" -DSTAMP="$stamp" "$@" ${NFL_CMAKE_OPTIONS:-} >"$build.log" 2>&1 ||
    { tail -n 20 "$build.log" >&2; fail "CMake cannot configure the $backend back-end" "the whole log: $build.log"; }
  cmake --build "$build" --target module --parallel "$jobs" || fail "the $backend back-end does not compile"
  mkdir -p "$target" && chmod go-w "$target"
  # Beside its final name and renamed: a running nfl keeps its old file.
  cp "$build/libggml-$backend.so" "$target/.libggml-$backend.so.new"
  chmod 755 "$target/.libggml-$backend.so.new"
  mv -f "$target/.libggml-$backend.so.new" "$target/libggml-$backend.so"
  say "installed $target/libggml-$backend.so"
}

# --- Vulkan ---------------------------------------------------------------------------------------------------------

vulkan_packages() {
  case "$1" in
    apt-get) echo "libvulkan-dev glslc spirv-headers" ;;
    dnf) echo "vulkan-loader-devel vulkan-headers glslc spirv-headers-devel" ;;
    pacman) echo "vulkan-headers vulkan-icd-loader shaderc spirv-headers" ;;
    zypper) echo "vulkan-devel vulkan-headers shaderc spirv-headers" ;;
    brew) echo "vulkan-headers vulkan-loader shaderc spirv-headers molten-vk" ;;
  esac
}

# The first folder of headers that are new enough for ggml.
new_vulkan_headers() {
  local folder
  for folder in ${VULKAN_SDK:+"$VULKAN_SDK/include"} "$@" /usr/local/include /usr/include /opt/homebrew/include; do
    if grep -q VK_EXT_layer_settings "$folder/vulkan/vulkan_core.h" 2>/dev/null; then printf '%s\n' "$folder"; return; fi
  done
  return 1
}

# Debian 12's headers are too old. Those of Debian 13 are files of text that suit any loader: they are unpacked into our
# cache, and nothing of the system is changed. apt checks their signature.
newer_debian_headers() {
  local cache=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror options
  [ -f "$keyring" ] && have apt-get && have dpkg || return 1
  # From where this system takes its own packages.
  mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' | awk '$2 == "bookworm" || $2 == "stable" { print $1; exit }')
  [ -n "$mirror" ] || return 1
  mkdir -p "$cache/lists/partial" "$cache/archives/partial"
  echo "deb [signed-by=$keyring] $mirror trixie main" >"$cache/sources.list"
  options=(-q -o "Dir::Etc::SourceList=$cache/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$cache/lists" -o "Dir::Cache=$cache")
  say "this system's Vulkan headers are too old for ggml; unpacking Debian 13's into $cache"
  (cd "$cache" && apt-get "${options[@]}" update >apt.log 2>&1 && apt-get "${options[@]}" download libvulkan-dev >>apt.log 2>&1 &&
    dpkg -x libvulkan-dev_*.deb . && rm -f libvulkan-dev_*.deb)
}

build_vulkan() {
  local manager packages headers cache=${XDG_CACHE_HOME:-$HOME/.cache}/nfl/vulkan-headers
  manager=$(package_manager)
  if ! have glslc || ! { [ -n "${VULKAN_SDK:-}" ] || [ -f /usr/include/spirv/unified1/spirv.hpp ] || [ "$manager" = brew ]; } ||
    ! { [ -n "${VULKAN_SDK:-}" ] || compgen -G '/usr/lib*/libvulkan.so' >/dev/null || compgen -G '/usr/lib/*-linux-gnu/libvulkan.so' >/dev/null || [ "$manager" = brew ]; }; then
    read -r -a packages <<<"$(vulkan_packages "$manager")"
    say "the Vulkan back-end needs ${packages[*]:-glslc, the Vulkan loader and headers, SPIR-V headers}; installing"
    [ ${#packages[@]} -gt 0 ] && install_packages "$manager" "${packages[@]}" ||
      fail "could not install what the Vulkan back-end needs" "install LunarG's Vulkan SDK (https://vulkan.lunarg.com) and set VULKAN_SDK"
  fi
  headers=$(new_vulkan_headers "$cache/usr/include") ||
    { newer_debian_headers "$cache" && headers=$(new_vulkan_headers "$cache/usr/include"); } ||
    fail "the Vulkan headers are too old: ggml needs VK_EXT_layer_settings (1.3.272 or newer)" \
      "install LunarG's Vulkan SDK (https://vulkan.lunarg.com), set VULKAN_SDK, then run ./install.sh vulkan again"
  if ! glslc --target-env=vulkan1.3 -fshader-stage=compute -o /dev/null - 2>/dev/null <<<'#version 450
#extension GL_KHR_cooperative_matrix : require
void main() {}'; then
    say "note: this glslc is too old for shaders that use matrix units: cards that have them read prompts more slowly"
    say "      than they could. A shaderc of 2025 or later on PATH changes that."
  fi
  say "building the Vulkan back-end (about five minutes of one core)"
  build_module vulkan -DGGML_VULKAN=ON -DVulkan_INCLUDE_DIR="$headers"
}

# --- CUDA -----------------------------------------------------------------------------------------------------------

# NVIDIA's compiler and libraries as wheels of the Python registry, at one version.
CUDA_WHEELS="nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.0.2.14"

cuda_toolkit_of_the_system() {
  local folder
  if have nvcc; then dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")"; return; fi
  for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /opt/cuda; do
    if [ -x "$folder/bin/nvcc" ]; then printf '%s\n' "$folder"; return; fi
  done
  return 1
}

# Kept with the user's data, not in the cache: the module loads cuBLAS from there.
cuda_toolkit_of_the_registry() {
  local environment toolkit library
  environment=$(data_home)/toolkits/cuda-13.0
  if ! compgen -G "$environment/lib/python*/site-packages/nvidia/cu13/lib/stubs/libcuda.so" >/dev/null; then
    have python3 || { say "python3 is missing"; return 1; }
    say "no nvcc on this machine; installing NVIDIA's from the Python registry into $environment (840 MB)"
    python3 -m venv "$environment" && "$environment/bin/pip" install -q $CUDA_WHEELS || return 1
    toolkit=$(echo "$environment"/lib/python*/site-packages/nvidia/cu13)
    # The wheels lack the names that linkers look for, and the driver's library to link against: the real one comes
    # with the driver, so an empty one with the same functions serves here.
    ln -sfn lib "$toolkit/lib64"
    for library in cudart cublas cublasLt; do ln -sfn "lib$library.so.13" "$toolkit/lib/lib$library.so"; done
    mkdir -p "$toolkit/lib/stubs"
    grep -ohE '\bcu(Mem|Device|Ctx|Get|Init|Stream)[A-Za-z0-9_]*\(' "$(ggml_sources)"/src/ggml-cuda/*.cu* | tr -d '(' | sort -u |
      sed 's/.*/void &(void) {}/' | cc -shared -fPIC -x c -Wl,-soname,libcuda.so.1 -o "$toolkit/lib/stubs/libcuda.so" -
  fi
  echo "$environment"/lib/python*/site-packages/nvidia/cu13
}

# What the cards of this machine compute with, such as "86"; NFL_CUDA_ARCHITECTURES decides without one.
cuda_architectures() {
  local found=${NFL_CUDA_ARCHITECTURES:-}
  [ -n "$found" ] || found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u | paste -sd ';' -) || true
  [ -n "$found" ] && printf '%s\n' "$found"
}

build_cuda() {
  local toolkit architectures
  architectures=$(cuda_architectures) || fail "no NVIDIA card answers, so the architecture to build for is unknown" \
    "name it: NFL_CUDA_ARCHITECTURES=86 ./install.sh cuda (75 Turing, 80 and 86 Ampere, 89 Ada, 90 Hopper, 120 Blackwell)"
  toolkit=$(cuda_toolkit_of_the_system || cuda_toolkit_of_the_registry) || fail "there is no CUDA compiler" \
    "install python3 with venv, or NVIDIA's CUDA toolkit (https://developer.nvidia.com/cuda-downloads) and set CUDA_HOME"
  say "building the CUDA back-end for $architectures with $toolkit (tens of minutes on a few cores)"
  PATH=$toolkit/bin:$PATH CUDAToolkit_ROOT=$toolkit build_module cuda -DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF \
    -DCMAKE_CUDA_COMPILER="$toolkit/bin/nvcc" -DCMAKE_CUDA_ARCHITECTURES="$architectures"
}

# --- The test with Vulkan in software ---------------------------------------------------------------------------------

test_vulkan() {
  local driver
  if ! compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' >/dev/null; then
    [ "$(package_manager)" = apt-get ] && install_packages apt-get mesa-vulkan-drivers ||
      fail "Mesa's Vulkan driver in software (lavapipe) is missing" "install it: mesa-vulkan-drivers, or vulkan-swrast"
  fi
  build_vulkan
  driver=$(compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' | head -n 1)
  # ggml takes a device in software only when it is named; no other driver may stand in for it.
  GGML_VK_VISIBLE_DEVICES=0 VK_ICD_FILENAMES=$driver VK_DRIVER_FILES=$driver \
    cargo test --release --locked -p nfl --test nfl-tests -- --ignored --test-threads 1 vulkan
}
