# What `cmake --install` puts where, for find_package, pkg-config and CPack.
include(CMakePackageConfigHelpers)

install(TARGETS vtr_runtime EXPORT vtr_runtime
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/vtr DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(BUILD_SHARED_LIBS)
  install(EXPORT vtr_runtime FILE vtr_runtime-targets.cmake NAMESPACE vtr_runtime::
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/vtr_runtime)
  configure_package_config_file(cmake/vtr_runtime-config.cmake.in vtr_runtime-config.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/vtr_runtime)
  write_basic_package_version_file(vtr_runtime-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/vtr_runtime-config.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/vtr_runtime-config-version.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/vtr_runtime)
  configure_file(cmake/vtr_runtime.pc.in vtr_runtime.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/vtr_runtime.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

set(CPACK_GENERATOR TGZ DEB)
set(CPACK_PACKAGE_NAME vtr-runtime)
set(CPACK_PACKAGE_VENDOR vtr-export)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGE_CONTACT "vtr-export maintainers")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_CURRENT_SOURCE_DIR}/../../LICENSE)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# ONNX Runtime comes as a release archive or a wheel, not as a package that dpkg knows.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_BINARY_DIR}/onnxruntime)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_STRIP_FILES ON)
include(CPack)
