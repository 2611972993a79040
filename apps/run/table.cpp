// apps/run/table.cpp - aligned text tables.
#include "apps/run/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine/error.h"

namespace eg {
namespace {

/// Columns a text takes on a terminal: UTF-8 characters, each counted as one column wide.
std::size_t width_of(const std::string& text) {
  return std::size_t(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

bool numeric(const std::string& cell) {
  const std::size_t i = !cell.empty() && (cell[0] == '-' || cell[0] == '+') ? 1 : 0;
  return cell == "nan" || cell == "inf" || cell == "-inf" || cell == "-" ||
         (i < cell.size() && cell[i] >= '0' && cell[i] <= '9');
}

std::string padded(const std::string& cell, std::size_t width, bool right) {
  const std::string space(width - std::min(width, width_of(cell)), ' ');
  return right ? space + cell : cell + space;
}

}  // namespace

void TextTable::add_row(std::vector<std::string> cells) {
  check(cells.size() <= headers_.size(), Kind::internal,
        [&] { return cat("a table row has ", cells.size(), " cells for ", headers_.size(), " columns"); });
  cells.resize(headers_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::text() const {
  std::vector<std::size_t> widths;
  std::vector<bool> right;
  for (std::size_t c = 0; c < headers_.size(); ++c) {
    std::size_t width = width_of(headers_[c]);
    bool all = !rows_.empty();
    for (const auto& row : rows_) {
      width = std::max(width, width_of(row[c]));
      all = all && (row[c].empty() || numeric(row[c]));
    }
    widths.push_back(width);
    right.push_back(all);
  }
  std::string out, rule;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string row;
    for (std::size_t c = 0; c < cells.size(); ++c) row += (c ? "  " : "") + padded(cells[c], widths[c], right[c]);
    out += row.substr(0, row.find_last_not_of(' ') + 1) + '\n';
  };
  for (std::size_t c = 0; c < widths.size(); ++c) rule += (c ? "  " : "") + std::string(widths[c], '-');
  line(headers_);
  out += rule + '\n';
  for (const auto& row : rows_) line(row);
  return out;
}

std::string TextTable::markdown() const {
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (const std::string& cell : cells) {
      out += "| ";
      for (const char c : cell) (out += c == '|' ? "\\" : "") += c;
      out += ' ';
    }
    out += "|\n";
  };
  line(headers_);
  for (std::size_t c = 0; c < headers_.size(); ++c) out += "|---";
  out += "|\n";
  for (const auto& row : rows_) line(row);
  return out;
}

std::string fixed(double value, int decimals) {
  if (std::isnan(value)) return "nan";
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

}  // namespace eg
