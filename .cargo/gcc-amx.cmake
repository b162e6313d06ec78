# Read by CMake in every project() of llama.cpp (CMAKE_PROJECT_INCLUDE in .cargo/config.toml).
#
# GCC before 11.5, 12.4 and 13.3 drops the stores that fill a tile configuration (GCC bug 114098): on a processor with
# Intel AMX the first quantised product then crashes. Without dead-store elimination the code is right. Only the
# files that use tiles are compiled so: all others keep the flags of llama.cpp's own build.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64"
    AND CMAKE_CURRENT_SOURCE_DIR STREQUAL CMAKE_SOURCE_DIR)
  set(version ${CMAKE_CXX_COMPILER_VERSION})
  if(version VERSION_LESS 11.5
      OR (version VERSION_GREATER_EQUAL 12 AND version VERSION_LESS 12.4)
      OR (version VERSION_GREATER_EQUAL 13 AND version VERSION_LESS 13.3))
    # Deferred, because a source's properties can be set only once the target that it belongs to exists.
    cmake_language(DEFER CALL set_source_files_properties
      ${CMAKE_SOURCE_DIR}/ggml/src/ggml-cpu/amx/amx.cpp
      ${CMAKE_SOURCE_DIR}/ggml/src/ggml-cpu/amx/mmq.cpp
      TARGET_DIRECTORY ggml-cpu
      PROPERTIES COMPILE_OPTIONS "-fno-dse;-fno-tree-dse")
  endif()
endif()
