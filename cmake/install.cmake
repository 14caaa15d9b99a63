# cmake --install: the program, the embedded models, and the library for find_package(seer).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(libraries seer_flags seer_core seer_io seer_cpu seer_ops seer_model seer_train seer_eval seer_api)
if(SEER_HAVE_CUDA)
  list(APPEND libraries seer_cuda seer_cuda_model)
else()
  list(APPEND libraries seer_no_cuda seer_no_cuda_model)
endif()
install(TARGETS ${libraries} EXPORT seerTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT seerTargets NAMESPACE seer:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/seer)
configure_package_config_file(cmake/seerConfig.cmake.in seerConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/seer)
write_basic_package_version_file(seerConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/seerConfig.cmake ${PROJECT_BINARY_DIR}/seerConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/seer)
install(DIRECTORY include/seer DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS seer RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY models DESTINATION ${CMAKE_INSTALL_DATADIR}/seer)
