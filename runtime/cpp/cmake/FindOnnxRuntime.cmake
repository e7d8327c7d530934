# ONNX Runtime as the target onnxruntime::onnxruntime, from the first of these:
#   1. its own CMake package (find_package(onnxruntime CONFIG)),
#   2. ONNXRUNTIME_ROOT: a folder with include/ and lib/, as its release archives have,
#   3. ONNXRUNTIME_WHEEL: the folder of an installed Python package (.../site-packages/onnxruntime), which holds the
#      library and no headers; third_party/ has those of the C API, which every newer library serves.
set(ONNXRUNTIME_ROOT "" CACHE PATH "Folder with ONNX Runtime's include/ and lib/")
set(ONNXRUNTIME_WHEEL "" CACHE PATH "Installed Python package onnxruntime or onnxruntime-gpu, for its library")

if(NOT TARGET onnxruntime::onnxruntime)
  if(ONNXRUNTIME_ROOT)
    find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_c_api.h HINTS ${ONNXRUNTIME_ROOT}
      PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session NO_DEFAULT_PATH)
    find_library(OnnxRuntime_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
  elseif(ONNXRUNTIME_WHEEL)
    set(OnnxRuntime_INCLUDE_DIR ${CMAKE_CURRENT_LIST_DIR}/../third_party/onnxruntime/include)
    file(GLOB OnnxRuntime_IN_WHEEL ${ONNXRUNTIME_WHEEL}/capi/libonnxruntime.so.*)
    if(OnnxRuntime_IN_WHEEL)
      # The loader looks for the name without the minor version, which the package leaves out.
      list(GET OnnxRuntime_IN_WHEEL 0 OnnxRuntime_IN_WHEEL)
      set(OnnxRuntime_LIBRARY ${CMAKE_BINARY_DIR}/onnxruntime/libonnxruntime.so.1)
      file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/onnxruntime)
      file(CREATE_LINK ${OnnxRuntime_IN_WHEEL} ${OnnxRuntime_LIBRARY} SYMBOLIC)
    endif()
  else()
    find_package(onnxruntime CONFIG QUIET)
    if(NOT TARGET onnxruntime::onnxruntime)
      find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_c_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
      find_library(OnnxRuntime_LIBRARY onnxruntime)
    endif()
  endif()
endif()

include(FindPackageHandleStandardArgs)
if(TARGET onnxruntime::onnxruntime)
  set(OnnxRuntime_FOUND TRUE)
else()
  find_package_handle_standard_args(OnnxRuntime
    REQUIRED_VARS OnnxRuntime_LIBRARY OnnxRuntime_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "give -DONNXRUNTIME_ROOT=<folder with include/ and lib/> or -DONNXRUNTIME_WHEEL=<site-packages/onnxruntime>")
  if(OnnxRuntime_FOUND)
    add_library(onnxruntime::onnxruntime SHARED IMPORTED GLOBAL)
    set_target_properties(onnxruntime::onnxruntime PROPERTIES
      IMPORTED_LOCATION ${OnnxRuntime_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${OnnxRuntime_INCLUDE_DIR})
  endif()
endif()
