// optim/plugin.h - methods in a shared object, which `evergrad continual --plugin ./libmine.so --methods mine` takes up.
//
//   EVERGRAD_PLUGIN { eg::register_method<Mine>({.name = "mine", .summary = "..."}); }
//
// The object is compiled against the headers of the very build that loads it and links nothing (CMake: a MODULE library
// that links evergrad::headers); its undefined symbols are those of the evergrad binary. Classes cross this border, so
// the two must agree on every layout: the object carries engine/abi.h's tag, and a binary with another one refuses it.
#pragma once
#include "engine/abi.h"
#include "optim/registry.h"

/// Begins the function that registers the object's methods; its body follows in braces. Once per shared object. What it
/// throws is reported as the plugin's failure.
#define EVERGRAD_PLUGIN                            \
  extern "C" {                                     \
  extern const char evergrad_plugin_abi[];         \
  const char evergrad_plugin_abi[] = EVERGRAD_ABI; \
  void evergrad_plugin_register();                 \
  }                                                \
  void evergrad_plugin_register()
