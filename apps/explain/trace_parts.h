// apps/explain/trace_parts.h - the parts of the traced step: the page that collects it, forward (trace_forward.cpp), and
// backward with the update (trace_update.cpp). For trace.cpp only.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/explain/trace.h"
#include "apps/trainer.h"
#include "autograd/tape.h"

namespace eg::traced {

using List = std::vector<double>;
constexpr std::int64_t kFollowed = 0;  // which image of the batch

std::string text_of(double x);
double norm(const List& v);
List part(const List& v, std::int64_t begin, std::int64_t count);
List softmax(const List& logits);

/// Collects lines and numbers.
class Page {
 public:
  void section(const std::string& name, const std::string& sentence) {
    section_ = name;
    text_ += cat(text_.empty() ? "" : "\n", ++sections_, "  ", name, ": ", sentence, '\n');
  }
  void words(const std::string& name, const std::string& value) { put(name, value, value); }
  void whole(const std::string& name, std::int64_t value) { put(name, std::to_string(value), value); }
  void number(const std::string& name, double value) { put(name, text_of(value), value); }
  /// Six numbers a line.
  void list(const std::string& name, const List& values) {
    std::string shown;
    for (std::size_t i = 0; i < values.size(); ++i)
      shown += cat(i == 0 ? "" : i % 6 ? "  " : "\n" + std::string(3 + kNames, ' '), text_of(values[i]));
    put(name, shown, values);
  }
  Trace finish() const { return {text_, json_.dump()}; }

 private:
  static constexpr std::size_t kNames = 40;  // columns for a line's name
  template <class Value>
  void put(const std::string& name, const std::string& shown, const Value& value) {
    text_ += cat("   ", name, std::string(name.size() < kNames ? kNames - name.size() : 1, ' '), shown, '\n');
    json_[section_][name] = value;
  }
  std::string text_, section_;
  nlohmann::json json_;
  int sections_ = 0;
};

// ---- forward ----
/// What one forward pass shows of one image.
struct Seen {
  List tokens, logits;                   // [N, C] before the first block; [K]
  std::vector<List> qkv, hidden, after;  // by block: [N, 3C], [N, F], [N, C]
  List features;
  double loss = 0.0;  // mean over the batch
};

/// Forward with everything watched. The loss stands on `tape`.
Tensor forward_seen(Trainer& trainer, const StepInputs& in, Seen& seen);
void show_tokens(Page& page, Trainer& trainer, const StepInputs& in, const Seen& seen);
void show_attention(Page& page, const VitConfig& c, const Seen& seen);
void show_mlp(Page& page, const VitConfig& c, const Seen& seen);
void show_loss(Page& page, const Seen& seen, std::int32_t label, double divisor);

// ---- backward and update ----
/// Backward on the tape; each gradient group is noted when it is final.
void show_backward(Page& page, Trainer& trainer, Tape& tape, const Tensor& loss);
void show_arrow(Page& page, Trainer& trainer, const std::string& group, double moved);
/// A weight of one matrix, before the step.
struct WatchedWeight {
  std::string name, rule;
  double before = 0.0, gradient = 0.0;
};

Param& param(Trainer& t, const std::string& name);
WatchedWeight watch_weight(Trainer& t, const std::string& name, const std::string& rule);
/// Distance that the four attention matrices of a block have moved.
double moved_by(Trainer& trainer, int block, const List& before);

}  // namespace eg::traced
