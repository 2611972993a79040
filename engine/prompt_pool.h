// engine/prompt_pool.h - the numbers of a prompt pool (learning to prompt, Wang et al. 2022, arXiv:2112.08654): what a method
// asks for, and what the network is built with.
#pragma once

namespace eg {

/// How many prompts there are, how long they are, and who gets which.
struct PromptPool {
  int pool = 0;                 // prompts, each with a key; 0: the network has none
  int length = 10;              // tokens of a prompt
  int select = 4;               // prompts that an image gets, at most `pool`
  double pull = 1.0;            // lambda: weight of the cosine between an image's query and the keys it chose
  bool batchwise = true;        // in training all images of a batch get the prompts that most of them chose
  bool batchwise_test = false;  // in tests too, which tells the network what else is in the batch
};

}  // namespace eg
