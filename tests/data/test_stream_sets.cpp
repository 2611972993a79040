// tests/data/test_stream_sets.cpp - streams whose tasks differ in kind: five classes and one, folders of classes, several
// data sets, and domains that shift while a task is learned.
#include <algorithm>
#include <map>
#include <set>

#include "data/loader.h"
#include "tests/data/streams.h"

using namespace eg;
using namespace eg::test;

namespace {

std::shared_ptr<const Dataset> procedural(int classes, int train, int test) {
  ProceduralOptions o;
  o.classes = classes, o.train_per_class = train, o.test_per_class = test;
  return std::shared_ptr<const Dataset>(make_procedural(o));
}

/// Three alphabets of 2, 3 and 5 characters, four drawings each.
void write_alphabets(const TemporaryFolder& f) {
  for (const auto& [alphabet, characters] : std::map<std::string, int>{{"Greek", 5}, {"Korean", 2}, {"Latin", 3}})
    for (int c = 0; c < characters; ++c)
      for (int i = 0; i < 4; ++i) {
        const auto folder = f / (alphabet + "/character" + std::to_string(c));
        std::filesystem::create_directories(folder);
        write_file(folder / (std::to_string(i) + ".bmp"), bmp(4, 4, 10 * c, 0, i));
      }
}

}  // namespace

TEST_CASE("5+1: five new classes and one in turn, one output per class, the easy tasks marked") {
  const auto d = procedural(20, 6, 2);
  const StreamConfig c = config(Protocol::five_plus_one, 6, 5);
  const auto s = make_stream(d, c);
  CHECK(s->head_classes() == 20);
  std::set<std::int32_t> classes, outputs;
  for (std::int64_t t = 0; t < 6; ++t) {
    const Task task = s->task(t);
    CHECK(task.easy == (t % 2 == 1));
    CHECK(task.classes.size() == (t % 2 ? 1u : 5u));
    CHECK(task.class_mask.empty());  // the head answers with any of its outputs
    CHECK_FALSE(task.revisit);
    check_labels(*d, task, task.train);
    check_labels(*d, task, task.test);
    for (const std::int32_t k : task.classes) CHECK(classes.insert(k).second);
    for (const std::int32_t k : task.head_labels) CHECK(outputs.insert(k).second);
  }
  CHECK(classes.size() == 18);
  CHECK(*outputs.rbegin() < 20);
  CHECK(contains(s->describe(), "5 classes and 1 class in turn, disjoint"));
}

TEST_CASE("5+1: classes come back from a deck with the outputs they had; a disjoint stream says what fits") {
  const auto d = procedural(13, 4, 2);  // two pairs a round, one class waits
  StreamConfig c = config(Protocol::five_plus_one, 9, 5);
  CHECK(resolved_sampling(d, c) == ClassSampling::deck);
  const auto s = make_stream(d, c);
  std::map<std::int32_t, std::int32_t> output;
  for (std::int64_t t = 0; t < 9; ++t) {
    const Task task = s->task(t);
    CHECK(task.revisit == (t >= 4));
    for (std::size_t i = 0; i < task.classes.size(); ++i) {
      const auto [at, is_new] = output.try_emplace(task.classes[i], task.head_labels[i]);
      CHECK(at->second == task.head_labels[i]);
    }
  }
  c.sampling = ClassSampling::disjoint;
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), "use at most 4 tasks"));
  c.global_labels = true, c.sampling = ClassSampling::deck;
  const Task masked = make_stream(d, c)->task(1);
  CHECK(std::count(masked.class_mask.begin(), masked.class_mask.end(), 1) == 1);
  // A data set of a million classes does not get a million outputs.
  CHECK(make_stream(procedural(1'000'000, 1, 1), config(Protocol::five_plus_one, 5, 5))->head_classes() == 18);
}

TEST_CASE("groups: every task is one folder of classes, smaller ones leave outputs closed") {
  const TemporaryFolder f;
  write_alphabets(f);
  const auto d = std::shared_ptr<const Dataset>(open_folder(f.path()));
  StreamConfig c = config(Protocol::groups, 3, 5);
  const auto s = make_stream(d, c);
  CHECK(s->head_classes() == 5);
  std::set<std::size_t> sizes;
  for (std::int64_t t = 0; t < 3; ++t) {
    const Task task = s->task(t);
    std::set<std::string> folders;
    for (const std::int32_t k : task.classes) {
      const std::string name = d->class_name(k);
      folders.insert(name.substr(0, name.find('/')));
    }
    REQUIRE(folders.size() == 1);
    CHECK(contains(task.name, *folders.begin()));
    sizes.insert(task.classes.size());
    check_labels(*d, task, task.train);
    check_labels(*d, task, task.test);
    CHECK(task.train.size() == 3 * std::int64_t(task.classes.size()));
    if (task.classes.size() == 5)
      CHECK(task.class_mask.empty());
    else
      CHECK(std::count(task.class_mask.begin(), task.class_mask.end(), 1) == std::int64_t(task.classes.size()));
  }
  CHECK(sizes == std::set<std::size_t>{2, 3, 5});
  c.global_labels = true;
  CHECK(make_stream(d, c)->head_classes() == 10);
  check_labels(*d, make_stream(d, c)->task(2), make_stream(d, c)->task(2).train);
  c.tasks = 7;
  CHECK(make_stream(d, c)->task(3).revisit);
  c.sampling = ClassSampling::disjoint;
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), "use --tasks 3 or fewer"));
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(twelve_classes(), config(Protocol::groups, 2, 2)); }),
                 "classes that lie in folders"));
}

TEST_CASE("folder: the share that is held out for testing can be chosen; every class keeps an image for training") {
  const TemporaryFolder f;
  write_alphabets(f);
  DatasetOptions o;
  o.test_share = 0.25;
  CHECK(open_folder(f.path(), o)->size(Split::test) == 10);
  o.test_share = 0.99;
  CHECK(open_folder(f.path(), o)->size(Split::train) == 10);
  o.test_share = 1.0;
  CHECK(contains(error_text(Kind::usage, [&] { open_folder(f.path(), o); }), "test share of 1"));
}

TEST_CASE("join: classes and images follow one another, in whatever format is asked for") {
  const auto a = procedural(3, 4, 2), b = procedural(2, 5, 1);
  const auto d = join({a, b}, {"first", "second"});
  CHECK(d->name() == "first+second");
  CHECK(d->classes() == 5);
  CHECK(d->class_name(3) == "second/" + b->class_name(0));
  CHECK(d->size(Split::train) == 22);
  CHECK(d->size(Split::test) == 8);
  for (const std::int64_t i : {std::int64_t(0), std::int64_t(11), std::int64_t(12), std::int64_t(21)}) {
    const bool second = i >= 12;
    const std::int64_t local = second ? i - 12 : i;
    CHECK(d->label(Split::train, i) == (second ? 3 + b->label(Split::train, local) : a->label(Split::train, local)));
    CHECK(pixels(*d, Split::train, i, {1, 12}) == pixels(second ? *b : *a, Split::train, local, {1, 12}));
  }
  for (int c = 0; c < 5; ++c)
    for (const std::int64_t i : d->indices_of(Split::test, c)) CHECK(d->label(Split::test, i) == c);
  REQUIRE(d->parts().size() == 2);
  CHECK(d->parts()[1].first_class == 3);
  CHECK(a->parts().size() == 1);
  CHECK(contains(error_text(Kind::usage, [&] { (void)d->label(Split::train, 22); }), "outside 0..21"));
  CHECK(contains(error_text(Kind::usage, [] { join({}, {}); }), "needs parts"));
}

TEST_CASE("sequence: data sets in turn, interleaved, or as one deck") {
  const auto d = join({procedural(6, 4, 2), procedural(9, 4, 2)}, {"a", "b"});
  StreamConfig c = config(Protocol::class_subset, 5, 3);
  const auto sources = [&] {
    const auto s = make_stream(d, c);
    std::string text;
    std::set<std::int32_t> seen;
    for (std::int64_t t = 0; t < c.tasks; ++t) {
      const Task task = s->task(t);
      check_labels(*d, task, task.train);
      std::set<char> from;
      for (const std::int32_t k : task.classes) {
        from.insert(k < 6 ? 'a' : 'b');
        CHECK(seen.insert(k).second);
      }
      text += from.size() == 1 ? *from.begin() : '*';
    }
    return text;
  };
  CHECK(sources() == "aabbb");
  c.order = ClassOrder::interleaved;
  c.tasks = 4;
  CHECK(sources() == "abab");
  c.tasks = 5, c.order = ClassOrder::mixed;
  CHECK(contains(sources(), "*"));
  c.order = ClassOrder::in_turn, c.sampling = ClassSampling::disjoint, c.tasks = 6;
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), "a has 6"));  // three tasks of three
  c.sampling = ClassSampling::automatic;
  CHECK(make_stream(d, c)->task(2).revisit);  // a's deck is shuffled again
  CHECK_FALSE(make_stream(d, c)->task(5).revisit);
  c.tasks = 1;
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), "cannot visit 2 data sets"));
  c.tasks = 4, c.classes_per_task = 7;
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), "a has 6"));
  c.classes_per_task = 3, c.sampling = ClassSampling::automatic, c.global_labels = true;
  CHECK(make_stream(d, c)->head_classes() == 15);
  check_labels(*d, make_stream(d, c)->task(3), make_stream(d, c)->task(3).test);
}

TEST_CASE("sequence: parts are found below the folder or in their own, and what is missing is named") {
  const TemporaryFolder f;
  std::filesystem::create_directories(f / "omniglot");
  const TemporaryFolder letters;
  write_alphabets(letters);
  for (const auto& one : std::filesystem::directory_iterator(letters.path()))
    std::filesystem::rename(one.path(), f / "omniglot" / one.path().filename());
  const auto d = open_dataset("sequence:omniglot+procedural", f.path());
  CHECK(d->name() == "omniglot+procedural");
  CHECK(d->classes() == 1010);
  CHECK(contains(d->class_name(0), "omniglot/Greek/character0"));
  const auto twice = open_dataset("sequence:folder=" + (f / "omniglot").string() + "+omniglot+omniglot", f.path());
  CHECK(twice->parts()[2].name == "omniglot#2");
  const auto wrong = [&](const std::string& text, const std::filesystem::path& dir) {
    return error_text(Kind::usage, [&] { open_dataset("sequence:" + text, dir); });
  };
  CHECK(contains(wrong("", f.path()), "no data set"));
  CHECK(contains(wrong("procedural+imagenet", f.path()), "unknown part 'imagenet'"));
  CHECK(contains(wrong("omniglot", "/nowhere"), "none of these is a folder: /nowhere/omniglot"));
  CHECK(contains(wrong("cifar100", ""), "no --data names the folder"));
  CHECK(contains(wrong("folder", f.path()), "write folder=DIR"));
}

TEST_CASE("domain: a gradual shift moves from the task before to this one, and ends where the abrupt one begins") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::domain, 4, 5), g = c;
  g.gradual = true;
  for (const char* domain : {"rotation", "hue", "contrast", "blur", "noise"}) {
    c.domain = g.domain = domain;
    const auto abrupt = make_stream(d, c), gradual = make_stream(d, g);
    CHECK_FALSE(gradual->task(0).transform.gradual);
    for (std::int64_t t = 0; t < 4; ++t) {
      CHECK_FALSE(abrupt->task(t).transform.gradual);
      CHECK(gradual->task(t).transform.amount == abrupt->task(t).transform.amount);
      if (t > 0) CHECK(gradual->task(t).transform.start == abrupt->task(t - 1).transform.amount);
    }
    CHECK(contains(gradual->task(2).transform.describe(), " to "));
  }
  g.domain = "inversion";
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, g); }), "no parameter"));
}

TEST_CASE("loader: in a gradual shift an image changes with its place in the task; a test stands at the end") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::domain, 3, 2);
  c.domain = "contrast", c.gradual = true;
  const Task task = make_stream(d, c)->task(1);
  LoaderConfig l;
  l.format = {1, 8}, l.batch = 16, l.epochs = 2, l.workers = 0;
  l.shift_samples = 2 * task.train.size();
  const auto images = [&](std::int64_t batch, int workers) {
    LoaderConfig w = l;
    w.workers = workers, w.batch = batch;
    Loader loader(d, task.train, task.transform, w);
    std::vector<std::vector<std::uint8_t>> all;
    std::vector<std::int64_t> positions;
    for (int e = 0; e < 2; ++e)
      while (const Batch* b = loader.next())
        for (std::int64_t i = 0; i < b->count; ++i) {
          all.emplace_back(b->images.data() + i * 64, b->images.data() + (i + 1) * 64);
          positions.push_back(b->positions[std::size_t(i)]);
        }
    // Every image is that of the interpolated parameter at its place in the task.
    for (std::size_t i = 0; i < all.size(); ++i) {
      Transform at = task.transform;
      at.gradual = false;
      at.amount =
          task.transform.start + (task.transform.amount - task.transform.start) * (double(i) / double(l.shift_samples));
      std::vector<std::uint8_t> expected(64), scratch;
      const std::int64_t index = task.train.indices[std::size_t(positions[i])];
      d->image(Split::train, index, l.format, expected.data());
      PreparedTransform(at, l.format).apply(expected.data(), std::uint64_t(index) * 2, scratch);
      CHECK(all[i] == expected);
    }
    return all;
  };
  const auto one = images(16, 0);
  CHECK(one == images(7, 2));  // whatever the batch size, whoever prepares it
  l.shift_samples = 0;
  Loader test(d, task.test, task.transform, l);
  Transform end = task.transform;
  end.gradual = false;
  Loader abrupt(d, task.test, end, l);
  const Batch *x = test.next(), *y = abrupt.next();
  CHECK(std::equal(x->images.data(), x->images.data() + x->images.size(), y->images.data()));
}
