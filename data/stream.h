// data/stream.h - a stream turns a data set into an endless or finite sequence of tasks (methods.md C).
//
// task(t) is a pure function of (seed, t): nothing of earlier tasks is kept, a task costs memory for its own samples
// only, and tasks may be asked for in any order. Class orders are permutations computed point by point
// (data/permutation.h), so that a million classes cost nothing. data/streams/ holds the protocols.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/permutation.h"
#include "data/transform.h"

namespace eg {

/// Which images, and with which labels the task shows them. Vectors have equal length.
struct SampleSet {
  Split split = Split::train;
  std::vector<std::int64_t> indices;  // into the data set's split
  std::vector<std::int32_t> labels;   // in the head's label space
  std::int64_t size() const { return std::int64_t(indices.size()); }
};

/// One task: which images with which labels, what happens to them, and what the head must be able to say.
struct Task {
  std::int64_t index = 0;
  std::string name;                       // "task 3: apple, bear, chair, ..."
  std::vector<std::int32_t> classes;      // the data set's classes in this task
  std::vector<std::int32_t> head_labels;  // head_labels[k]: the head's label of classes[k] (before random labels)
  std::int64_t head_classes = 0;          // outputs that the head needs for this stream
  std::vector<std::uint8_t> class_mask;   // [head_classes]: 1 where the head may answer; empty: everywhere
  SampleSet train, validation, test;
  Transform transform;
  double label_noise = 0.0;  // probability that a training label was replaced
  // deck, iid, and later parts of a concatenation: some class of this task was certainly or possibly seen before
  bool revisit = false;
  bool easy = false;  // 5+1: trained on and tested, but left out of what is averaged over tasks
};

enum class Protocol : std::uint8_t {
  class_subset,       // every task: other classes, labels 0..K-1
  class_incremental,  // every task adds K classes; training data: new classes, or all so far (StreamConfig::accumulate)
  five_plus_one,      // K new classes (hard) and one new class (easy) in turn; every class has an output of its own
  groups,             // every task: all classes of one folder of class folders, such as an alphabet of characters
  label_permutation,  // the same images, class k is called pi_t(k)
  input_permutation,  // the same classes, pixels permuted by pi_t
  random_label,       // the same images, labels redrawn per task: pure memorisation, evaluated on the training images
  noisy_label,        // symmetric label noise falling linearly from label_noise to 0 over the tasks
  domain              // the same classes, images mapped by phi_t
};
const char* to_string(Protocol protocol);
/// "class-subset", ... Throws Error{usage} listing the names.
Protocol parse_protocol(const std::string& name);
const std::vector<std::string>& protocol_names();

enum class ClassSampling : std::uint8_t {
  automatic,  // disjoint while the classes last for all tasks, else deck
  disjoint,   // no class twice; an error when they run out
  deck,       // repeated shuffles of all classes, dealt K at a time: every class once per pass
  iid         // K distinct classes drawn anew for each task
};
const char* to_string(ClassSampling sampling);
ClassSampling parse_class_sampling(const std::string& name);

/// How the tasks of a sequence of data sets (Dataset::parts) take turns. Of a single data set it says nothing.
enum class ClassOrder : std::uint8_t {
  in_turn,      // the first tasks draw from the first data set, the next from the second, ...
  interleaved,  // task t draws from data set t modulo their number
  mixed         // every task draws from the classes of all
};
ClassOrder parse_class_order(const std::string& name);

/// How make_stream turns a data set into tasks.
struct StreamConfig {
  Protocol protocol = Protocol::class_subset;
  std::int64_t tasks = 20;
  int classes_per_task =
      5;  // groups: ignored; 0: all classes of the data set (not for class-subset and class-incremental)
  ClassSampling sampling = ClassSampling::automatic;
  ClassOrder order = ClassOrder::in_turn;
  std::uint64_t seed = 1;
  std::int64_t train_limit = 0, test_limit = 0;  // samples per task, spread evenly over its classes; 0: all
  double validation = 0.0;                       // share of the task's training samples held out, in [0, 0.9]
  bool global_labels = false;          // class-subset, 5+1, groups: one label per class of the stream, with class_mask
  bool accumulate = false;             // class-incremental: train on all classes so far
  std::string permutation = "pixels";  // input-permutation: pixels | in-patch | patches
  int patch = 4;                       // for in-patch and patches
  std::string domain = "rotation";     // rotation | hue | contrast | blur | noise | inversion
  bool gradual = false;      // domain: task t moves from the parameter of task t - 1 to its own while it is learned
  double label_noise = 0.5;  // noisy-label: the first task's probability
};

/// A sequence of tasks over one data set. Throws Error{usage} at construction when the numbers do not fit the data.
class TaskStream {
 public:
  virtual ~TaskStream() = default;
  virtual std::int64_t tasks() const = 0;
  /// Task t of [0, tasks()). Thread-safe. Throws Error{usage} outside the range.
  virtual Task task(std::int64_t t) const = 0;
  virtual const std::shared_ptr<const Dataset>& dataset() const = 0;
  /// Outputs the head needs to serve every task.
  virtual std::int64_t head_classes() const = 0;
  virtual std::string describe() const = 0;
};

/// The stream that the configuration describes. Throws Error{usage} when the data set is too small for it.
std::shared_ptr<const TaskStream> make_stream(std::shared_ptr<const Dataset> data, const StreamConfig& config);
/// What `automatic` becomes for this stream. Throws as make_stream does.
ClassSampling resolved_sampling(const std::shared_ptr<const Dataset>& data, const StreamConfig& config);
/// One stream after another over the same data set; task indices run on, names keep their part's prefix.
std::shared_ptr<const TaskStream> concatenate(std::vector<std::shared_ptr<const TaskStream>> parts);
/// The same stream, tested on what it holds out (StreamConfig::validation > 0): for choosing settings without looking
/// at a test image. A task that holds nothing out keeps its test, if that is made of training images (random-label).
/// task() throws Error{usage} for any other task without a held-out image.
std::shared_ptr<const TaskStream> tested_on_validation(std::shared_ptr<const TaskStream> stream);
/// The ordinary training set as one task (evergrad train): all classes, or the first `classes` of the data set.
Task whole_dataset(const Dataset& data, int classes = 0, std::int64_t train_limit = 0, std::int64_t test_limit = 0,
                   double validation = 0.0, std::uint64_t seed = 1);

}  // namespace eg
