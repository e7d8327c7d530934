# What `cmake --install` puts where, for find_package, pkg-config and CPack.
include(CMakePackageConfigHelpers)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/vtr_runtime)
install(TARGETS vtr_runtime EXPORT vtr_runtime
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
# ONNX Runtime is no package of Debian's: put libonnxruntime.so.1 beside the library, or where the loader looks anyway.
set_target_properties(vtr_runtime PROPERTIES INSTALL_RPATH "$ORIGIN")
install(DIRECTORY include/vtr DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ../../LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/vtr-runtime RENAME copyright)
install(EXPORT vtr_runtime FILE vtr_runtime-targets.cmake NAMESPACE vtr_runtime:: DESTINATION ${package})
configure_package_config_file(cmake/vtr_runtime-config.cmake.in vtr_runtime-config.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(vtr_runtime-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/vtr_runtime-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/vtr_runtime-config-version.cmake DESTINATION ${package})

# A program that is linked with the static library links what that needs, too. It is the shared libraries of others that
# are meant, so not those that pkg-config --static would name.
set(VTR_PC_REQUIRES)
set(VTR_PC_LIBS)
if(NOT BUILD_SHARED_LIBS)
  install(FILES cmake/FindOnnxRuntime.cmake DESTINATION ${package})
  set(VTR_PC_REQUIRES libcrypto)
  if(VTR_WITH_VIDEO)
    list(APPEND VTR_PC_REQUIRES libavformat libavcodec libavfilter libavutil)
  endif()
  list(JOIN VTR_PC_REQUIRES ", " VTR_PC_REQUIRES)
  set(VTR_PC_LIBS "-lonnxruntime -lstdc++ -lm")
endif()
# The folder may be moved as a whole.
file(RELATIVE_PATH VTR_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/vtr_runtime.pc.in vtr_runtime.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/vtr_runtime.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(CPACK_GENERATOR TGZ DEB)
set(CPACK_PACKAGE_NAME vtr-runtime)
set(CPACK_PACKAGE_VENDOR vtr-export)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGE_CONTACT "vtr-export maintainers")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_CURRENT_SOURCE_DIR}/../../LICENSE)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# dpkg knows no package for ONNX Runtime: it is found for its symbols, and stays out of the dependencies.
get_target_property(VTR_REAL_ONNXRUNTIME onnxruntime::onnxruntime LOCATION)
get_filename_component(VTR_REAL_ONNXRUNTIME_DIR ${VTR_REAL_ONNXRUNTIME} DIRECTORY)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${VTR_REAL_ONNXRUNTIME_DIR})
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_STRIP_FILES ON)
include(CPack)
