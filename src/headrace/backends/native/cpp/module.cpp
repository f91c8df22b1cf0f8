// Python's view of a compiled model.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>

#if defined(HEADRACE_X86)
#include <cpuid.h>
#elif defined(HEADRACE_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "choose.h"
#include "model.h"
#include "runner.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace headrace;

namespace {

using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using State = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

#if defined(HEADRACE_X86)
// F16C, for which not every compiler's __builtin_cpu_supports has a name.
bool converts_halves() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#elif defined(HEADRACE_ARM)
bool multiplies_bytes() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}
#endif

// Instruction sets that this machine runs, best first.
std::vector<std::string> instruction_sets() {
  std::vector<std::string> found;
#if defined(HEADRACE_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && converts_halves();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  if (avx2 && avx512) found.push_back("avx512");
  if (avx2) found.push_back("avx2");
#elif defined(HEADRACE_ARM)
  if (multiplies_bytes()) found.push_back("neon");
#endif
  found.push_back("portable");
  return found;
}

const Kernels& kernels(const std::string& name) {
  for (const std::string& found : instruction_sets()) {
    if (found != name) continue;
#if defined(HEADRACE_X86)
    if (name == "avx512") return avx512_kernels;
    if (name == "avx2") return avx2_kernels;
#elif defined(HEADRACE_ARM)
    if (name == "neon") return neon_kernels;
#endif
    return portable_kernels;
  }
  throw std::invalid_argument("this machine does not run " + name);
}

// A Model that keeps the arrays it points to alive.
class Bound {
 public:
  Bound(const std::string& isa, int threads, int tokens, int logits, int blocks, std::vector<int> widths)
      : model(kernels(isa), threads, tokens, logits, blocks, std::move(widths)) {}

  template <class Array>
  auto* hold(const Array& array) {
    held_.push_back(nb::cast(array));
    return array.data();
  }
  const float* hold_or_null(const nb::object& array) {
    return array.is_none() ? nullptr : hold(nb::cast<Floats>(array));
  }
  Norm norm(const nb::object& given) {
    if (given.is_none()) return Norm{};
    const auto [width, parts, eps, layer, gain, bias] =
        nb::cast<std::tuple<int, int, float, bool, nb::object, nb::object>>(given);
    return Norm{width, parts, eps, layer, hold_or_null(gain), hold_or_null(bias)};
  }

  Model model;

 private:
  std::vector<nb::object> held_;
};

int add_weight(Bound& self, int format, int outputs, int inputs, int group, int offset, bool affine, bool wide,
               size_t panel_bytes) {
  return self.model.add_weight(
      {static_cast<Format>(format), outputs, inputs, group, offset, affine, wide, nullptr, panel_bytes});
}

void fill_weight(Bound& self, int number, const Bytes& data) {
  if (data.size() < self.model.fill_weight(number, self.hold(data)))
    throw std::invalid_argument("the packed weight is too short");
}

// Has the system back every page of an array that starts with one, in huge pages where it has them. Adding nothing
// changes nothing, even where a kernel writes at the same time.
void back(const State& memory) {
  const nb::gil_scoped_release release;
#if defined(MADV_HUGEPAGE)
  madvise(memory.data(), memory.size(), MADV_HUGEPAGE);  // refused, it still works
#endif
  for (size_t at = 0; at < memory.size(); at += 4096) __atomic_fetch_or(memory.data() + at, 0, __ATOMIC_RELAXED);
}

void add_state(Bound& self, const State& keys, const State& values, int type) {
  self.model.add_state({self.hold(keys), self.hold(values), static_cast<StateType>(type)});
}

void add_embed(Bound& self, int out, int table, float scale, const nb::object& positions, const nb::object& types) {
  self.model.add(Embed{out, table, scale, self.hold_or_null(positions), self.hold_or_null(types)});
}

void add_normalise(Bound& self, int x, int out, const nb::object& norm) {
  self.model.add(Normalise{x, out, self.norm(norm)});
}

void add_linear(Bound& self, int x, int planes, const nb::object& norm,
                const std::vector<std::tuple<int, nb::object, int>>& products, int join, int activation, int out,
                bool coded, int out_planes) {
  Linear op{x, planes, self.norm(norm), {}, static_cast<Linear::Join>(join), static_cast<Activation>(activation), out,
            coded, out_planes};
  for (const auto& [weight, bias, buffer] : products) op.products.push_back({weight, self.hold_or_null(bias), buffer});
  self.model.add(std::move(op));
}

void add_attend(Bound& self, const std::vector<int>& buffers, int layer, int group, const std::vector<int>& shape,
                float scale, float softcap, const nb::object& q_norm, const nb::object& k_norm, const nb::object& rope,
                int out_planes) {
  Attention a{shape.at(0), shape.at(1), shape.at(2), scale, softcap, shape.at(3), shape.at(4) != 0};
  Rope turn{};
  if (!rope.is_none()) {
    const auto [cos, sin] = nb::cast<std::pair<Table, Table>>(rope);
    turn = {static_cast<int>(cos.shape(1)), self.hold(cos), self.hold(sin)};
  }
  self.model.add(Attend{buffers.at(0), buffers.at(1), buffers.at(2), buffers.at(3), layer, group, a, self.norm(q_norm),
                        self.norm(k_norm), turn, out_planes});
}

void add_experts(Bound& self, int x, int planes, int routes, int out, int top_k, int width, std::vector<int> gate,
                 std::vector<int> up, std::vector<int> down, int activation) {
  if (6 * gate.size() >= PHASES) throw std::invalid_argument("the kernels take fewer experts a layer");
  self.model.add(Experts{x, planes, routes, out, top_k, width, std::move(gate), std::move(up), std::move(down),
                         static_cast<Activation>(activation)});
}

int add_adapter(Bound& self, const std::vector<std::tuple<int, float, Table, Table>>& given) {
  std::vector<Target> targets;
  for (const auto& [weight, scale, a, b] : given) {
    const Matrix& matrix = self.model.weight(weight);
    const bool fits = a.shape(0) == b.shape(1) && a.shape(1) == size_t(matrix.inputs) && b.shape(0) == size_t(matrix.outputs);
    if (!fits) throw std::invalid_argument("an adapter does not fit its weight");
    targets.push_back({weight, static_cast<int>(a.shape(0)), scale, a.data(), b.data()});
  }
  return self.model.add_adapter(targets);
}

int choose_token(Bound& self, const Floats& logits, double temperature, int top_k, double top_p, double min_p,
                 std::pair<uint64_t, uint64_t> key, uint64_t position) {
  const Choice choice{temperature, top_k, top_p, min_p, {key.first, key.second}, position};
  return choose(self.model.kernels(), logits.data(), logits.size(), choice);
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> buffer(nb::handle_t<Bound> self, int number, size_t rows) {
  Bound& bound = nb::cast<Bound&>(self);
  return {bound.model.buffer(number), {rows, static_cast<size_t>(bound.model.width(number))}, self};
}

}  // namespace

NB_MODULE(_kernels, m) {
  m.def("instruction_sets", &instruction_sets);
  m.def("back", &back);
  nb::class_<Bound>(m, "Model")
      .def(nb::init<const std::string&, int, int, int, int, std::vector<int>>(), "isa"_a, "threads"_a, "tokens"_a,
           "logits"_a, "blocks"_a, "widths"_a)
      .def("add_weight", &add_weight)
      .def("fill_weight", &fill_weight)
      .def("add_state", &add_state)
      .def("add_embed", &add_embed, "out"_a, "table"_a, "scale"_a, "positions"_a.none(), "types"_a.none())
      .def("add_normalise", &add_normalise)
      .def("add_linear", &add_linear, "x"_a, "planes"_a, "norm"_a.none(), "products"_a, "join"_a, "activation"_a, "out"_a,
           "coded"_a, "out_planes"_a)
      .def("add_attend", &add_attend, "buffers"_a, "layer"_a, "group"_a, "shape"_a, "scale"_a, "softcap"_a,
           "q_norm"_a.none(), "k_norm"_a.none(), "rope"_a.none(), "out_planes"_a)
      .def("add_add", [](Bound& self, int x, int y, int out) { self.model.add(Add{x, y, out}); })
      .def("add_route", [](Bound& self, int x, int out, int weight, int experts, int top_k, bool renormalise) {
        self.model.add(Route{x, out, weight, experts, top_k, renormalise});
      })
      .def("add_experts", &add_experts)
      .def("add_keep", [](Bound& self, int x) { self.model.add(Keep{x}); })
      .def("add_head", [](Bound& self, int x, int planes, int weight, const nb::object& bias, float scale, float softcap) {
        self.model.add(Head{x, planes, weight, self.hold_or_null(bias), scale, softcap});
      }, "x"_a, "planes"_a, "weight"_a, "bias"_a.none(), "scale"_a, "softcap"_a)
      .def("workspace_bytes", [](Bound& self) { return self.model.workspace_bytes(); })
      .def("prepare", [](Bound& self, const Logits& logits) { self.model.prepare(self.hold(logits)); })
      .def("begin", [](Bound& self, std::vector<int32_t> tokens, const std::vector<std::pair<int, int>>& rows,
                       std::vector<int32_t> kept, std::vector<std::vector<std::vector<int32_t>>> pages,
                       const std::vector<std::pair<int, float>>& adapters) {
        self.model.begin(std::move(tokens), rows, std::move(kept), std::move(pages), adapters);
      })
      .def("add_adapter", &add_adapter)
      .def("remove_adapter", [](Bound& self, int number) { self.model.remove_adapter(number); })
      .def("low_bytes", [](Bound& self, int rank) { return self.model.low_bytes(rank); })
      .def("run", [](Bound& self, int start, int stop) {
        const nb::gil_scoped_release release;
        self.model.run(start, stop);
      })
      .def("choose", &choose_token)
      .def("buffer", &buffer)
      .def("take_nanoseconds", [](Bound& self) { return self.model.take_nanoseconds(); });
}
