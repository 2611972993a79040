// engine/abi.h - one line of text that is equal for two pieces of code that may exchange evergrad's objects.
//
// It names what decides about layouts: the version, the public headers (a hash of them without comments), the compiler,
// and the switches that change the standard library's classes. Optimisation and NDEBUG are not in it, since they change
// no layout.
#pragma once
#include "engine/header_hash.h"  // generated: EVERGRAD_VERSION and EVERGRAD_HEADER_HASH

#define EVERGRAD_ABI_TEXT_(x) #x
#define EVERGRAD_ABI_TEXT(x) EVERGRAD_ABI_TEXT_(x)

#if defined(__clang__)
#define EVERGRAD_ABI_COMPILER "clang " EVERGRAD_ABI_TEXT(__clang_major__)
#else
#define EVERGRAD_ABI_COMPILER "g++ " EVERGRAD_ABI_TEXT(__GNUC__)
#endif

#if defined(_GLIBCXX_DEBUG)
#define EVERGRAD_ABI_CONTAINERS ", checked containers"
#else
#define EVERGRAD_ABI_CONTAINERS ""
#endif

#if defined(__SANITIZE_ADDRESS__)
#define EVERGRAD_ABI_SANITIZER ", AddressSanitizer"
#elif defined(__SANITIZE_THREAD__)
#define EVERGRAD_ABI_SANITIZER ", ThreadSanitizer"
#else
#define EVERGRAD_ABI_SANITIZER ""
#endif

/// "evergrad 0.1.0, headers 1a2b3c4d, g++ 12", as the code that includes this is compiled.
#define EVERGRAD_ABI                                             \
  "evergrad " EVERGRAD_VERSION ", headers " EVERGRAD_HEADER_HASH \
  ", " EVERGRAD_ABI_COMPILER EVERGRAD_ABI_CONTAINERS EVERGRAD_ABI_SANITIZER
