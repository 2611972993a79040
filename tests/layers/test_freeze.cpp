// tests/layers/test_freeze.cpp - which parameters a pattern fits, and what is refused; tests/optim/test_frozen.cpp and
// test_vit.cpp say what frozen means.
#include <doctest/doctest.h>

#include "layers/freeze.h"
#include "layers/vit.h"

using namespace eg;

namespace {

VitConfig small() {
  VitConfig c;
  c.image_size = 8, c.patch = 4, c.dim = 8, c.depth = 11, c.heads = 2, c.classes = 3;
  return c;
}

std::string refused(Vit& model, const std::vector<std::string>& patterns) {
  try {
    freeze(parameters(model), patterns);
  } catch (const Error& e) {
    CHECK(e.kind == Kind::usage);
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("freeze: '*' is any text and '?' one character, of the whole name") {
  const std::string name = "blocks.10.attn.qkv.weight";
  for (const char* fits : {"blocks.10.attn.qkv.weight", "*", "blocks.*", "*weight", "blocks.??.attn.*",
                           "*.attn.*.weight", "b*l*o*s*t", "**", "blocks.10.*qkv*"}) {
    CAPTURE(std::string(fits));
    CHECK(matches(fits, name));
  }
  for (const char* not_this :
       {"", "blocks", "blocks.1.*", "blocks.?.*", "*bias", "attn.*", "*.attn", "blocks.10.attn.qkv.weight?"}) {
    CAPTURE(std::string(not_this));
    CHECK_FALSE(matches(not_this, name));
  }
  CHECK(matches("*aab", "aaaaaaaaab"));
  CHECK(matches("", ""));
}

TEST_CASE("freeze: freezes what fits; a pattern that fits nothing, and one that fits all, are refused") {
  Vit model = make_vit(small());
  const std::vector<Param*> params = parameters(model);
  const std::vector<std::string> patterns = {"blocks.1.*", "*_token", "patch_embed.*"};
  CHECK(matching(params, patterns).size() == 12 + 1 + 2);
  freeze(params, patterns);
  for (const Param* p : params)
    CHECK(p->frozen == (p->block == 1 || p->name == "cls_token" || p->module == eg::Module::patch_embed));
  const std::string message = refused(model, {"block.*"});
  CHECK(message.find("--freeze block.* fits no parameter") == 0);
  CHECK(message.find("blocks.*.mlp.fc1.weight") != std::string::npos);
  CHECK(message.find("head.bias") != std::string::npos);
  CHECK(refused(model, {"*"}).find("nothing to train") != std::string::npos);
}
