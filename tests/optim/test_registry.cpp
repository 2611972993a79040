// tests/optim/test_registry.cpp - what register_method refuses. (That it works is shown by tests/apps/test_plugin.cpp: a
// method that this program added would be taken up by its other tests.)
#include <doctest/doctest.h>

#include "engine/error.h"
#include "optim/registry.h"

using namespace eg;

namespace {
struct Idle final : Intervention {
  Idle(const MethodSpec&, const Parameters&) {}
  std::string name() const override { return "idle"; }
  Stage stage() const override { return Stage::scaling; }
  std::string describe() const override { return "nothing"; }
};
}  // namespace

TEST_CASE(
    "register_method: a name that is taken or cannot be written on a command line is refused, and nothing added") {
  const std::size_t before = method_list().size();
  for (const char* name :
       {"adamw", "l2init", "", "My-Method", "my method", "my:method", "a+b", "a,b", "2fast", "-x", "ä"}) {
    INFO(name);
    std::string text;
    try {
      register_method<Idle>({.name = name});
    } catch (const Error& e) {
      text = e.what();
      CHECK(e.kind == Kind::usage);
    }
    CHECK(text.find(std::string("'") + name + "'") != std::string::npos);
  }
  CHECK(method_list().size() == before);
}
