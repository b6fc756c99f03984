# Writes a C++ file with the texts of other files, as `namespace owl::cuda::text` in backend/cuda/emit.h declares
# them, without their #include and #pragma once lines (a blank line stays for each):
#   cmake -DOUTPUT=<file> -DFOLDER=<cpp> -DTEXTS="name=file+file name=file ..." -P embed.cmake
set(body "")
separate_arguments(TEXTS)
foreach(item IN LISTS TEXTS)
  string(REGEX MATCH "^([a-z_0-9]+)=(.*)$" match "${item}")
  set(name "${CMAKE_MATCH_1}")
  string(REPLACE "+" ";" files "${CMAKE_MATCH_2}")
  set(text "")
  foreach(file IN LISTS files)
    file(READ "${FOLDER}/${file}" content)
    string(APPEND text "\n${content}")
  endforeach()
  string(REGEX REPLACE "\n[ \t]*#[ \t]*(include[^\n]*|pragma[ \t]+once[^\n]*)" "\n" text "${text}")
  string(FIND "${text}" ")OWL\"" end)
  if(NOT end EQUAL -1)
    message(FATAL_ERROR "${files}: contains )OWL\", which would end the raw string literal")
  endif()
  string(APPEND body "extern const std::string_view ${name};\nconst std::string_view ${name} = R\"OWL(${text})OWL\";\n\n")
endforeach()
file(WRITE "${OUTPUT}" "// Made by cmake/embed.cmake.\n#include <string_view>\n\n"
  "namespace owl::cuda::text {\n\n${body}}  // namespace owl::cuda::text\n")
