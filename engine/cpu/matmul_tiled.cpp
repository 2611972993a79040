// engine/cpu/matmul_tiled.cpp - blocking and parallel order of a product; the arithmetic is in the kernels.
//
// All of op(b), or as many columns of it as fit kPanelWords, is packed once and shared. Tasks are blocks of C; each
// packs its own rows of op(a), a block of the depth at a time (sliver and panel of a block stay in the first-level
// cache, a task's rows in the second). When the depth takes several blocks, unfinished tiles wait in fp32 next to them;
// the last block hands each tile to the epilogue while it is hot. Every element of C is summed in order of depth
// whatever the tasks are, except where a long sum over few tiles (weight gradients of narrow layers) is split; how,
// depends on the shape alone, and the parts are added in order.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "engine/cpu/isa.h"
#include "engine/cpu/matmul.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kPanelWords = std::int64_t(1) << 22;  // 16 MiB of packed b at a time
constexpr std::int64_t kWantedTasks = 64, kFewTasks = 16;    // row blocks to aim for; below: split depth, then columns
constexpr std::int64_t kMinSplitDepth = 512, kMaxSplits = 8;

/// Memory that a thread keeps between products.
class Workspace {
 public:
  float* get(std::int64_t floats) {
    if (floats > held_) {
      block_.reset();
      held_ = 0;
      block_.reset(static_cast<float*>(::operator new(std::size_t(floats) * sizeof(float), std::align_val_t(64))));
      held_ = floats;
    }
    return block_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<float, Free> block_;
  std::int64_t held_ = 0;
};

thread_local Workspace panels_workspace, sums_workspace, split_workspace;

std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

class Product {
 public:
  Product(const Matmul& m, const MatmulPlan& plan, const TileKernel& kernel, EpilogueFn epilogue)
      : m_(m), p_(plan), k_(kernel), epilogue_(epilogue) {
    block_depth();
    block_rows_and_columns();
  }
  void run();

 private:
  void block_depth();
  void block_rows_and_columns();
  void pack_panels(std::int64_t first_panel, std::int64_t count);
  void run_task(std::int64_t task, std::int64_t first_panel, std::int64_t count);
  void pack_slivers(std::int64_t task_row, std::int64_t slivers, std::int64_t block, float* out, float* sums) const;
  void finish(const FinishedTile& tile, std::int64_t split) const;
  void add_splits();
  std::int64_t words_of(std::int64_t block) const { return std::min(block_words_, words_ - block * block_words_); }
  PackRange range(std::int64_t w0, std::int64_t width, std::int64_t block) const {
    const std::int64_t k0 = block * block_words_ * k_.elements_per_word, words = words_of(block);
    return {w0, width, k0, std::min(p_.depth - k0, words * k_.elements_per_word), words};
  }

  const Matmul& m_;
  const MatmulPlan& p_;
  const TileKernel& k_;
  const EpilogueFn epilogue_;
  std::int64_t words_ = 0, block_words_ = 0, blocks_ = 1;        // depth, in words
  std::int64_t slivers_ = 0, task_slivers_ = 1, row_tasks_ = 1;  // rows
  std::int64_t panels_ = 0, round_panels_ = 1, task_panels_ = 1, column_tasks_ = 1;
  std::int64_t splits_ = 1, split_blocks_ = 1;
  float* packed_ = nullptr;
  float* sums_ = nullptr;     // dgelu: [row task, N]; bias_grad_a: [split, M]
  float* partial_ = nullptr;  // [split, M, N]
};

void Product::block_depth() {
  words_ = round_up(chunks_of(p_.depth, k_.elements_per_word), k_.word_multiple);
  blocks_ = std::max<std::int64_t>(1, chunks_of(words_, kDepthBlock));
  block_words_ = std::max<std::int64_t>(1, round_up(chunks_of(words_, blocks_), 16));
  blocks_ = std::max<std::int64_t>(1, chunks_of(words_, block_words_));
}

void Product::block_rows_and_columns() {
  // At least one of each: a product without rows or columns still leaves its bias gradient.
  slivers_ = std::max<std::int64_t>(1, chunks_of(p_.rows, k_.mr));
  panels_ = std::max<std::int64_t>(1, chunks_of(p_.cols, k_.nr));
  task_slivers_ = std::clamp<std::int64_t>(chunks_of(slivers_, kWantedTasks), 3, 10);
  row_tasks_ = chunks_of(slivers_, task_slivers_);
  const std::int64_t panel_words = std::max<std::int64_t>(1, blocks_ * block_words_ * k_.nr);
  const std::int64_t rounds = chunks_of(panels_, std::max<std::int64_t>(8, kPanelWords / panel_words));
  round_panels_ = chunks_of(panels_, rounds);
  // Split columns make every column task pack the same rows of a again; split depth only costs a pass over C.
  if (row_tasks_ < kFewTasks && p_.depth >= 2 * kMinSplitDepth)
    splits_ = std::min({kMaxSplits, chunks_of(kFewTasks, row_tasks_), p_.depth / kMinSplitDepth, blocks_});
  split_blocks_ = chunks_of(blocks_, splits_);
  splits_ = chunks_of(blocks_, split_blocks_);
  column_tasks_ = std::min(round_panels_, chunks_of(kFewTasks, row_tasks_ * splits_));
  task_panels_ = chunks_of(round_panels_, column_tasks_);
  column_tasks_ = chunks_of(round_panels_, task_panels_);
}

void Product::pack_panels(std::int64_t first_panel, std::int64_t count) {
  const std::int64_t size = block_words_ * k_.nr;
  parallel_for(count * blocks_, std::max<std::int64_t>(1, 16384 / size),
               [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   const std::int64_t col = (first_panel + i % count) * k_.nr;
                   const PackRange r = range(col, std::min<std::int64_t>(k_.nr, p_.cols - col), i / count);
                   k_.pack_panel(p_.b, r, packed_ + i * size, nullptr);
                 }
               });
}

void Product::pack_slivers(std::int64_t row, std::int64_t slivers, std::int64_t block, float* out, float* sums) const {
  const PackFn pack = p_.a.depth_contiguous ? k_.pack_rows : k_.pack_words;
  for (std::int64_t s = 0; s < slivers; ++s) {
    const std::int64_t w0 = row + s * k_.mr;
    const PackRange r = range(w0, std::min<std::int64_t>(k_.mr, p_.rows - w0), block);
    pack(p_.a, r, out + s * k_.mr * kSliverStride, sums ? sums + w0 : nullptr);
  }
}

void Product::finish(const FinishedTile& tile, std::int64_t split) const {
  if (!partial_) return epilogue_(m_, tile);
  for (std::int64_t i = 0; i < tile.rows; ++i)
    std::memcpy(partial_ + (split * p_.rows + tile.row + i) * p_.cols + tile.col, tile.data + i * tile.stride,
                std::size_t(tile.cols) * sizeof(float));
}

void Product::run_task(std::int64_t task, std::int64_t first_panel, std::int64_t count) {
  const std::int64_t column_task = task % column_tasks_, row_task = task / column_tasks_ % row_tasks_;
  const std::int64_t split = task / (column_tasks_ * row_tasks_);
  const std::int64_t row = row_task * task_slivers_ * k_.mr,
                     slivers = std::min(task_slivers_, slivers_ - row_task * task_slivers_);
  const std::int64_t panel0 = column_task * task_panels_, panels = std::min(task_panels_, count - panel0);
  if (panels <= 0) return;
  const std::int64_t block0 = split * split_blocks_, block_end = std::min(blocks_, block0 + split_blocks_);
  const std::int64_t tile_size = std::int64_t(k_.mr) * k_.nr, sliver_size = k_.mr * kSliverStride;
  const bool one_block = block_end - block0 == 1;
  float* const a = thread_scratch(std::size_t(slivers * sliver_size + (one_block ? 1 : slivers * panels) * tile_size));
  float* const tiles = a + slivers * sliver_size;
  const TileFn multiply = p_.a.depth_contiguous ? k_.by_rows : k_.by_words;
  const bool a_sums = m_.epilogue == Epilogue::bias_grad_a && sums_ && first_panel == 0 && column_task == 0;
  // 256 columns of a block of b are 384 KiB: they stay in the second-level cache while the slivers go by.
  const std::int64_t group = std::max<std::int64_t>(1, 256 / k_.nr);
  for (std::int64_t block = block0; block < block_end; ++block) {
    pack_slivers(row, slivers, block, a, a_sums ? sums_ + split * p_.rows : nullptr);
    const float* const b = packed_ + (block * count + panel0) * block_words_ * k_.nr;
    for (std::int64_t from = 0; from < panels; from += group)
      for (std::int64_t s = 0; s < slivers; ++s)
        for (std::int64_t j = from; j < std::min(panels, from + group); ++j) {
          float* const tile = one_block ? tiles : tiles + (j * slivers + s) * tile_size;
          multiply(words_of(block), a + s * sliver_size, b + j * block_words_ * k_.nr, tile, block == block0);
          if (block + 1 < block_end) continue;
          const std::int64_t r0 = row + s * k_.mr, c0 = (first_panel + panel0 + j) * k_.nr;
          finish({tile, k_.nr, r0, c0, std::min<std::int64_t>(k_.mr, p_.rows - r0),
                  std::min<std::int64_t>(k_.nr, p_.cols - c0),
                  m_.epilogue == Epilogue::dgelu && sums_ ? sums_ + row_task * p_.cols : nullptr},
                 split);
        }
  }
}

// Adds the parts of the depth in order, a block of rows at a time, and applies the epilogue to the sum.
void Product::add_splits() {
  const std::int64_t grain = task_slivers_ * k_.mr, size = p_.rows * p_.cols;
  parallel_for(p_.rows, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    float* const to = partial_ + begin * p_.cols;
    const std::int64_t n = (end - begin) * p_.cols;
    for (std::int64_t s = 1; s < splits_; ++s)
      for (std::int64_t i = 0; i < n; ++i) to[i] += to[s * size + i];
    epilogue_(m_, {to, p_.cols, begin, 0, end - begin, p_.cols,
                   m_.epilogue == Epilogue::dgelu && sums_ ? sums_ + chunk * p_.cols : nullptr});
  });
}

void Product::run() {
  const bool row_sums = m_.epilogue == Epilogue::bias_grad_a;
  const std::int64_t width = row_sums ? p_.rows : p_.cols, count = row_sums ? splits_ : row_tasks_;
  if ((row_sums || m_.epilogue == Epilogue::dgelu) && m_.bias_grad) {
    sums_ = sums_workspace.get(count * width);
    std::fill_n(sums_, count * width, 0.0f);
  }
  if (splits_ > 1) partial_ = split_workspace.get(splits_ * p_.rows * p_.cols);
  packed_ = panels_workspace.get(round_panels_ * blocks_ * block_words_ * k_.nr);
  const std::int64_t tasks = splits_ * row_tasks_ * column_tasks_;
  const std::int64_t task_work = task_slivers_ * k_.mr * task_panels_ * k_.nr * split_blocks_ * block_words_;
  for (std::int64_t first = 0; first < panels_; first += round_panels_) {
    const std::int64_t panels = std::min(round_panels_, panels_ - first);
    pack_panels(first, panels);
    parallel_for(tasks, std::max<std::int64_t>(1, 400000 / task_work),
                 [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                   if (k_.begin) k_.begin();
                   for (std::int64_t t = begin; t < end; ++t) run_task(t, first, panels);
                   if (k_.end) k_.end();
                 });
  }
  if (partial_) add_splits();
  if (sums_) finish_bias_grad(m_, sums_, count, width);
}

}  // namespace

void run_tiled(const Matmul& m, const MatmulPlan& plan, const TileKernel& kernel, EpilogueFn epilogue) {
  Product(m, plan, kernel, epilogue).run();
}

}  // namespace eg::cpu
