// The program behind `gradwatch_bench gemm`: the engine's matrix products beside Eigen's. It is
// linked from the engine's objects, because products are no part of the library's interface.

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "server/base/philox.h"
#include "server/nn/buffer.h"
#include "server/nn/engine_level.h"
#include "server/nn/gemm.h"
#include "tests/bench/flags.h"
#include "tests/bench/machine_peak.h"
#include "tests/bench/shapes.h"

namespace gradwatch::bench {
namespace {

constexpr char kDescription[] =
    "The engine's matrix products on one thread, beside Eigen's product of the same shape, both as "
    "a "
    "share of the multiply-add peak measured in the same run.";

constexpr char kFooter[] = R"(
Products: forward [B,H][H,GH] and backward [B,GH][GH,H] are those of every time step, with the weights
packed before; input [TB,I][I,GH] and weights [GH,TB][TB,H] are made once a step; square is the large
product that ceilings are compared with. GH is the gates' width. Columns: best of bursts of about 2 ms.

Examples:
  gradwatch_bench gemm
  gradwatch_bench gemm --shapes square,charlm --cell gru --seconds 0.5 --json
)";

using Clock = std::chrono::steady_clock;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// c [rows, columns] += a [rows, depth] * b [depth, columns]
struct Product {
  std::string shape;
  std::string name;
  int64_t rows;
  int64_t columns;
  int64_t depth;
};

struct Flags {
  std::string shapes = "square,all";
  std::string cell = "lstm";
  double seconds = 0.2;
  bool json = false;
};

Matrix RandomMatrix(int64_t rows, int64_t columns, uint64_t number) {
  RandomStream random(1, StreamOf("gemm"), number);
  Matrix matrix(rows, columns);
  for (float& value : matrix.reshaped()) value = static_cast<float>(random.NextUniform() - 0.5);
  return matrix;
}

// Times two alternatives in turn, a burst each, and gives the best operations per second of both.
std::pair<double, double> BestRates(double flop, double seconds, const std::function<void()>& first,
                                    const std::function<void()>& second) {
  const auto burst = [flop](const std::function<void()>& run) {
    const Clock::time_point begin = Clock::now();
    double took = 0.0;
    int count = 0;
    for (; took < 2e-3; ++count) {
      run();
      took = std::chrono::duration<double>(Clock::now() - begin).count();
    }
    return flop * count / took;
  };
  std::pair<double, double> best = {burst(first), burst(second)};
  const Clock::time_point begin = Clock::now();
  do {
    best.first = std::max(best.first, burst(first));
    best.second = std::max(best.second, burst(second));
  } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  return best;
}

// Weight gradients come from two matrices with TB rows; everything else has packed weights.
std::pair<double, double> RatesOf(const Product& product, double seconds) {
  const double flop = 2.0 * static_cast<double>(product.rows * product.columns) *
                      static_cast<double>(product.depth);
  Matrix c = Matrix::Zero(product.rows, product.columns);
  if (product.name == "weights") {
    const Matrix g = RandomMatrix(product.depth, product.rows, 1);
    const Matrix x = RandomMatrix(product.depth, product.columns, 2);
    nn::Buffer<float> workspace(nn::OuterProductWorkspace<float>());
    return BestRates(
        flop, seconds,
        [&] {
          const nn::OuterTerm<float> term = {product.columns, x.data(), product.columns, c.data(),
                                             product.columns};
          nn::OuterProducts<float>({0, product.rows}, product.depth, g.data(), product.rows,
                                   {&term, 1}, nn::Into::kAdd, {}, workspace.data());
        },
        [&] { c.noalias() += g.transpose() * x; });
  }
  const Matrix a = RandomMatrix(product.rows, product.depth, 1);
  const Matrix b = RandomMatrix(product.depth, product.columns, 2);
  using Packed = nn::PackedMatrix<float>;
  nn::Buffer<float> memory(Packed::Size(product.columns, product.depth));
  const Packed packed(memory.data(), product.columns, product.depth);
  const Range all = {0, product.columns};
  packed.PackTransposed(b.data(), product.columns, all);
  return BestRates(
      flop, seconds,
      [&] {
        packed.Multiply(all, product.rows, a.data(), product.depth, nn::Into::kAdd, nullptr,
                        c.data(), product.columns);
      },
      [&] { c.noalias() += a * b; });
}

void AddPreset(const Shape& shape, int64_t gate_blocks, std::vector<Product>* products) {
  const int64_t gates = gate_blocks * shape.hidden;
  const int64_t all = shape.batch * shape.time;
  products->push_back({shape.name, "forward", shape.batch, gates, shape.hidden});
  products->push_back({shape.name, "backward", shape.batch, shape.hidden, gates});
  products->push_back({shape.name, "input", all, gates, shape.input});
  products->push_back({shape.name, "weights", gates, shape.hidden, all});
}

absl::StatusOr<std::vector<Product>> ProductsOf(const Flags& flags) {
  const absl::StatusOr<v1::Model::Cell> cell = CellNamed(flags.cell);
  if (!cell.ok()) return cell.status();
  std::vector<Product> products;
  for (const absl::string_view name : absl::StrSplit(flags.shapes, ',')) {
    if (name == "square") {
      for (const int64_t n : {1024, 2048}) products.push_back({"square", "square", n, n, n});
      continue;
    }
    const absl::StatusOr<std::vector<Shape>> shapes = PresetsNamed(name);
    if (!shapes.ok()) return shapes.status();
    for (const Shape& shape : *shapes) AddPreset(shape, GatesOf(*cell), &products);
  }
  return products;
}

void Print(const Product& product, const std::pair<double, double>& rates, double peak, bool json) {
  const double ours = rates.first / 1e9;
  const double eigen = rates.second / 1e9;
  if (json) {
    const nlohmann::ordered_json line = {
        {"shape", product.shape},     {"product", product.name},   {"rows", product.rows},
        {"columns", product.columns}, {"depth", product.depth},    {"gflops", ours},
        {"eigen_gflops", eigen},      {"peak_gflops", peak / 1e9}, {"engine", nn::EngineLevel()}};
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf(
        "%-8s %-9s %5ld x %5ld x %5ld   %7.1f GFLOP/s (%3.0f %%)   Eigen %7.1f (%3.0f %%)\n",
        product.shape.c_str(), product.name.c_str(), static_cast<long>(product.rows),
        static_cast<long>(product.columns), static_cast<long>(product.depth), ours,
        1e11 * ours / peak, eigen, 1e11 * eigen / peak);
  }
  std::fflush(stdout);
}

// Of the vectors that this engine level uses.
double PeakOf() { return MultiplyAddRate(static_cast<int>(8 * kVectorBytes), 1, 0.2).best; }

int Run(absl::Span<const std::string> args) {
  Flags flags;
  CLI::App app(kDescription, "gradwatch_bench gemm");
  app.footer(kFooter);
  app.option_defaults()->always_capture_default();
  app.add_option("--shapes", flags.shapes, "square, presets, all presets (all), a comma list");
  app.add_option("--cell", flags.cell, "Whose gates the presets' products have")
      ->check(CLI::IsMember({"gru", "lstm", "rnn"}));
  app.add_option("--seconds", flags.seconds, "Time for each line")->check(CLI::PositiveNumber);
  app.add_flag("--json", flags.json, "One JSON object per line instead of text");
  if (const auto code = ParseFlags(app, args)) return *code;
  const absl::StatusOr<std::vector<Product>> products = ProductsOf(flags);
  if (!products.ok()) {
    std::fprintf(stderr, "gradwatch_bench gemm: %s\n",
                 std::string(products.status().message()).c_str());
    return 2;
  }
  const double peak = PeakOf();
  if (!flags.json) {
    std::printf("engine %s, multiply-add peak %.1f GFLOP/s, 1 thread\n", nn::EngineLevel(),
                peak / 1e9);
  }
  for (const Product& product : *products) {
    Print(product, RatesOf(product, flags.seconds), peak, flags.json);
  }
  return 0;
}

}  // namespace
}  // namespace gradwatch::bench

int main(int argc, char** argv) {
  return gradwatch::bench::Run(std::vector<std::string>(argv + 1, argv + argc));
}
