// apps/run/table.h - tables for people: aligned columns of text.
#pragma once
#include <string>
#include <vector>

namespace eg {

class TextTable {
 public:
  explicit TextTable(std::vector<std::string> headers) : headers_(std::move(headers)) {}
  /// Missing cells are empty; surplus ones throw Error{internal}.
  void add_row(std::vector<std::string> cells);
  /// Header, rule, rows. A column whose cells all begin like a number is aligned to the right.
  std::string text() const;
  /// The same as a Markdown table.
  std::string markdown() const;

 private:
  std::vector<std::string> headers_;
  std::vector<std::vector<std::string>> rows_;
};

/// Fixed decimals: fixed(0.12345, 2) is "0.12"; "nan" and "inf" as such.
std::string fixed(double value, int decimals);

}  // namespace eg
