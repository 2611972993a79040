// layers/linear.cpp - the parameters of a dense layer.
#include "layers/linear.h"

#include "layers/init.h"

namespace eg {

Linear make_linear(const std::string& name, std::int64_t out, std::int64_t in, Module module, int block) {
  const bool head = module == Module::head;
  return {.weight = {.name = name + ".weight",
                     .role = head ? Role::head : Role::weight,
                     .module = module,
                     .shape = {out, in},
                     .init = init_linear(),
                     .fan_in = in,
                     .block = block,
                     .decays = true},
          .bias = {.name = name + ".bias",
                   .role = head ? Role::head : Role::bias,
                   .module = module,
                   .shape = {out},
                   .fan_in = in,
                   .block = block}};
}

}  // namespace eg
