# VTR_ONNXRUNTIME: what to link so that the library starts with any ONNX Runtime from 1.20 on.
#
# ONNX Runtime marks its symbols with its exact version (OrtGetApiBase@VERS_1.22.0), and the loader refuses a program
# that was linked with one version where it finds another. Its C API keeps what it has promised, so a shared library of
# ours is linked with a stand-in of the same name that has the one symbol without a mark. A static library leaves the
# choice to the program, and a library of a distribution (libonnxruntime.so.1.21) is taken as it is.
set(VTR_ONNXRUNTIME onnxruntime::onnxruntime)
get_target_property(VTR_REAL_ONNXRUNTIME onnxruntime::onnxruntime LOCATION)
if(BUILD_SHARED_LIBS AND VTR_REAL_ONNXRUNTIME AND CMAKE_OBJDUMP)
  execute_process(COMMAND ${CMAKE_OBJDUMP} -p ${VTR_REAL_ONNXRUNTIME} OUTPUT_VARIABLE VTR_HEADERS ERROR_QUIET)
  if(VTR_HEADERS MATCHES "SONAME +libonnxruntime\\.so\\.1\n")
    set(VTR_STAND_IN ${CMAKE_CURRENT_BINARY_DIR}/stand_in)
    file(WRITE ${VTR_STAND_IN}/onnxruntime.c "const void *OrtGetApiBase(void) { return 0; }\n")
    execute_process(
      COMMAND ${CMAKE_C_COMPILER} -shared -nostdlib -fPIC -Wl,-soname,libonnxruntime.so.1
        -o ${VTR_STAND_IN}/libonnxruntime.so ${VTR_STAND_IN}/onnxruntime.c
      RESULT_VARIABLE VTR_FAILED)
    if(VTR_FAILED)
      message(WARNING "The library will run with this version of ONNX Runtime alone")
    else()
      set(VTR_ONNXRUNTIME -L${VTR_STAND_IN} -lonnxruntime)
      # What runs in the build tree finds the real one.
      get_filename_component(VTR_REAL_ONNXRUNTIME_DIR ${VTR_REAL_ONNXRUNTIME} DIRECTORY)
      list(APPEND CMAKE_BUILD_RPATH ${VTR_REAL_ONNXRUNTIME_DIR})
    endif()
  endif()
endif()
