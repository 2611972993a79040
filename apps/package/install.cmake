# What `cmake --install` puts where: the binary, the libraries with their public headers, a CMake package, manual pages and
# completion for the shells. Tried as an outsider would by tests/scripts/test_install.py.
include(CMakePackageConfigHelpers)

# evergrad::evergrad is everything; evergrad::headers is what a plugin needs, whose symbols are those of the binary.
add_library(evergrad_everything INTERFACE)
target_link_libraries(evergrad_everything INTERFACE evergrad_optim evergrad_data evergrad_cuda_devices)
set(installed evergrad_headers evergrad_everything evergrad_engine evergrad_autograd evergrad_layers evergrad_optim evergrad_data
  evergrad_cuda_devices)
foreach(device emulated cuda)
  if(TARGET evergrad_${device})
    list(APPEND installed evergrad_${device})
  endif()
endforeach()
foreach(target ${installed})
  string(REPLACE evergrad_ "" name ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
endforeach()
set_target_properties(evergrad_everything PROPERTIES EXPORT_NAME evergrad)

install(TARGETS ${installed} EXPORT evergradTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/evergrad)
install(TARGETS evergrad RUNTIME)
install(DIRECTORY ${PROJECT_BINARY_DIR}/public/evergrad DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES apps/examples/autograd.cpp apps/examples/train_vit.cpp apps/examples/my_method.cpp
  DESTINATION ${CMAKE_INSTALL_DATADIR}/evergrad/examples)
install(FILES apps/examples/outside.cmake DESTINATION ${CMAKE_INSTALL_DATADIR}/evergrad/examples RENAME CMakeLists.txt)

if(EVERGRAD_CUDA)
  list(APPEND EVERGRAD_INSTALLED_NEEDS CUDAToolkit)
endif()
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/evergrad)
configure_package_config_file(apps/package/evergradConfig.cmake.in ${PROJECT_BINARY_DIR}/evergradConfig.cmake
  INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/evergradConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/evergradConfig.cmake ${PROJECT_BINARY_DIR}/evergradConfigVersion.cmake DESTINATION ${package})
install(EXPORT evergradTargets NAMESPACE evergrad:: DESTINATION ${package})

# Manual pages and completion are what the binary says of itself.
set(shell ${PROJECT_BINARY_DIR}/shell)
add_custom_command(OUTPUT ${shell}/_evergrad
  COMMAND ${CMAKE_COMMAND} -E make_directory ${shell}/man
  COMMAND evergrad man --out ${shell}/man
  COMMAND evergrad completion bash > ${shell}/evergrad
  COMMAND evergrad completion zsh > ${shell}/_evergrad
  DEPENDS evergrad COMMENT "Manual pages and completion" VERBATIM)
add_custom_target(evergrad_shell ALL DEPENDS ${shell}/_evergrad)
install(DIRECTORY ${shell}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${shell}/evergrad DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${shell}/_evergrad DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
