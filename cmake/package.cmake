# The files of `cmake --install`, and the CMake package and the pkg-config file by which C++ projects find them.
#
#   component cpp        libowl, libowl_cuda if it was built, headers, oneDNN's library and licences, the CMake package,
#                        owl.pc
#   component programs   the MNIST programs, which need the component cpp
#   component python     the Python module; only when a wheel is built
#
# A prefix has the usual folders include/, lib/, bin/. In a wheel, the package folder owl/ is the prefix, and scripts
# on the environment's PATH start the programs, because the path from there to the libraries differs between
# environments.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(prefix "")
set(namelink "")
if(SKBUILD)
  set(prefix "owl/")
  set(CMAKE_INSTALL_LIBDIR lib)
  set(namelink NAMELINK_SKIP)  # a wheel cannot contain links: a linker script replaces libowl.so
endif()
set(OWL_LIBRARY_DIR "${prefix}${CMAKE_INSTALL_LIBDIR}")
set(OWL_INCLUDE_DIR "${prefix}${CMAKE_INSTALL_INCLUDEDIR}")
set(owl_package_dir "${OWL_LIBRARY_DIR}/cmake/owl")

install(TARGETS owl LIBRARY DESTINATION "${OWL_LIBRARY_DIR}" COMPONENT cpp ${namelink})
if(TARGET owl_cuda)
  install(TARGETS owl_cuda LIBRARY DESTINATION "${OWL_LIBRARY_DIR}" COMPONENT cpp)
endif()
install(FILES "${OWL_ONEDNN_LIBRARY}" DESTINATION "${OWL_LIBRARY_DIR}" RENAME "${OWL_ONEDNN_SONAME}" COMPONENT cpp)
install(FILES ${OWL_ONEDNN_NOTICES} DESTINATION "${OWL_LIBRARY_DIR}/onednn" COMPONENT cpp)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/cpp/include/owl" DESTINATION "${OWL_INCLUDE_DIR}" COMPONENT cpp
  FILES_MATCHING PATTERN "*.h")

set(OWL_LIBRARY_FILE "libowl.so.${OWL_SOVERSION}")
configure_file("${PROJECT_SOURCE_DIR}/cmake/libowl.so.in" "${PROJECT_BINARY_DIR}/wheel/libowl.so" @ONLY)
if(SKBUILD)
  install(FILES "${PROJECT_BINARY_DIR}/wheel/libowl.so" DESTINATION "${OWL_LIBRARY_DIR}" COMPONENT cpp)
endif()
file(RELATIVE_PATH OWL_PREFIX_FROM_PC "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
configure_file("${PROJECT_SOURCE_DIR}/cmake/owl.pc.in" "${PROJECT_BINARY_DIR}/owl.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/owl.pc" DESTINATION "${OWL_LIBRARY_DIR}/pkgconfig" COMPONENT cpp)
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/owlConfig.cmake.in" "${PROJECT_BINARY_DIR}/owlConfig.cmake"
  INSTALL_DESTINATION "${owl_package_dir}" PATH_VARS OWL_LIBRARY_DIR OWL_INCLUDE_DIR
  NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/owlConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/owlConfig.cmake" "${PROJECT_BINARY_DIR}/owlConfigVersion.cmake"
  DESTINATION "${owl_package_dir}" COMPONENT cpp)

# The programs run from the installation and from the build folder, also after these are moved.
file(RELATIVE_PATH bundle "${PROJECT_BINARY_DIR}" "${owl_bundle}")
foreach(program IN LISTS owl_programs)
  set_target_properties(${program} PROPERTIES
    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};$ORIGIN/${bundle}")
  install(TARGETS ${program} RUNTIME DESTINATION "${prefix}${CMAKE_INSTALL_BINDIR}" COMPONENT programs)
  if(SKBUILD)
    set(OWL_PROGRAM ${program})
    configure_file("${PROJECT_SOURCE_DIR}/cmake/program.in" "${PROJECT_BINARY_DIR}/scripts/${program}" @ONLY)
    install(PROGRAMS "${PROJECT_BINARY_DIR}/scripts/${program}" DESTINATION "${SKBUILD_SCRIPTS_DIR}" COMPONENT programs)
  endif()
endforeach()

if(TARGET _owl AND SKBUILD)
  install(TARGETS _owl LIBRARY DESTINATION owl COMPONENT python)
endif()
