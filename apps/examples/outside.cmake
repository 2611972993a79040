# A project that uses the installed evergrad: cmake -S . -B build -DCMAKE_PREFIX_PATH=DIR && cmake --build build
cmake_minimum_required(VERSION 3.20)
project(my_evergrad LANGUAGES CXX)
find_package(evergrad 0.1 REQUIRED)

foreach(example autograd train_vit)
  add_executable(${example} ${example}.cpp)
  target_link_libraries(${example} PRIVATE evergrad::evergrad)
endforeach()
add_library(my_method MODULE my_method.cpp)
target_link_libraries(my_method PRIVATE evergrad::headers)
