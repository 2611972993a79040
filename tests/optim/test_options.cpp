// tests/optim/test_options.cpp - how methods and their options are written, and what a mistake is answered.
#include "optim/options_reader.h"
#include "tests/optim/rig.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("method text: options stand after colons or commas, and mistakes are named") {
  const MethodSpec a = parse_method("arrow:blocks=last-4:window=8"), b = parse_method("arrow:blocks=last:4,window=8");
  CHECK(a.name == "arrow");
  CHECK(a.options == b.options);
  CHECK(parse_method("arrow:blocks=0,3").options.at("blocks") == "0+3");
  CHECK(parse_method("sgd:nesterov").options.at("nesterov").empty());
  CHECK(contains(usage_error([] { parse_method("adamv"); }), "known: adamw"));
  CHECK(contains(usage_error([] { parse_method("adamw:"); }), "name:key=value"));
  CHECK(contains(usage_error([] { parse_method("adamw:=3"); }), "=3"));
  CHECK(contains(usage_error([] { parse_method("lr=3"); }), "name first"));
  CHECK(contains(usage_error([] { parse_method("adamw:eps=1:eps=2"); }), "twice"));
  for (const auto& [text, word] :
       std::vector<std::pair<std::string, std::string>>{{"adamw:windwo=3", "it has beta1"},
                                                        {"adamw:beta1=1.5", "from 0 to"},
                                                        {"adamw:eps=nan", "eps=nan"},
                                                        {"adamw:eps=", "eps="},
                                                        {"arrow:window=0", "from 1 to 64"},
                                                        {"arrow:window=8.5", "whole number"},
                                                        {"arrow:grouping=blocks", "tensor, module, block, global"},
                                                        {"arrow:paper=maybe", "true or false"},
                                                        {"arrow:blocks=last-0", "last-N"},
                                                        {"arrow:blocks=7", "2 blocks"},
                                                        {"arrow:tensors=qx", "q, k, v and o"},
                                                        {"arrow:graft=adamw:base=sgd", "base=adamw"}})
    CHECK(contains(usage_error([&, &text = text] {
                     Rig(kCpu, text, {{.start = {1.0}}, {.start = {1.0}, .name = "b", .block = 1}});
                   }),
                   word));
}

TEST_CASE("options: switches, bounds and words are read as written") {
  const auto reader = [](const MethodSpec& spec) { return OptionReader(spec); };
  MethodSpec spec{"sgd", {{"a", ""}, {"b", "yes"}, {"c", "0"}, {"n", "-3"}, {"x", "1e-3"}, {"w", "two"}, {"t", "1x"}}};
  OptionReader r = reader(spec);
  CHECK((r.flag("a", false) && r.flag("b", false) && !r.flag("c", true) && r.flag("absent", true)));
  CHECK(r.integer("n", 5, -3, 3) == -3);
  CHECK(r.integer("absent", 5, 0, 3) == 5);
  CHECK(r.number("x", 0.5, 1e-3, 1.0) == 1e-3);
  CHECK(r.choice("w", {"one", "two"}, 0) == 1);
  CHECK(r.text("absent", "word") == "word");
  CHECK(contains(usage_error([&] { r.number("x", 0.5, 2e-3, 1.0); }),
                 "x=1e-3 must be a number from 0.002 to 1 (default 0.5)"));
  CHECK(contains(usage_error([&] { r.integer("n", 0, 0, 9); }), "n=-3 must be a whole number from 0 to 9"));
  CHECK(contains(usage_error([&] { r.number("t", 0.0, 0.0, 9.0); }), "t=1x"));
  CHECK(contains(usage_error([&] { r.choice("w", {"one", "three"}, 0); }), "w=two is not one of one, three"));
  r.finish();  // everything was asked for
  spec.options.emplace("zz", "one");
  CHECK(contains(usage_error([&] { r.finish(); }), "no option 'zz'; it has a, absent, b"));
}
