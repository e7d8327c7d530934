# Resize and sampling with their tests and nothing else: for machines whose libraries are not at hand (cross-builds).
# GoogleTest is built from Debian's source package (/usr/src/googletest, of libgtest-dev or googletest).
set(BUILD_SHARED_LIBS OFF)
set(INSTALL_GTEST OFF)
add_subdirectory(/usr/src/googletest googletest EXCLUDE_FROM_ALL)
enable_testing()
include(GoogleTest)
add_executable(vtr_pixel_tests
  src/resize.cc
  src/sampling.cc
  tests/resize_test.cc
  tests/sampling_test.cc
)
target_include_directories(vtr_pixel_tests PRIVATE include src)
target_compile_definitions(vtr_pixel_tests PRIVATE VTR_PIXEL_TESTS_ALONE)
target_link_libraries(vtr_pixel_tests PRIVATE GTest::gtest GTest::gtest_main)
target_link_options(vtr_pixel_tests PRIVATE -static)
add_test(NAME vtr_pixel_tests COMMAND vtr_pixel_tests)
