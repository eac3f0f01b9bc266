#include "server/alerts/layout.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace gradwatch::alerts {
namespace {

std::string GroupName(const v1::ParameterInfo& parameter) {
  if (parameter.layer() >= 0) return absl::StrCat("layer ", parameter.layer());
  const absl::string_view name = parameter.name();
  return std::string(name.substr(0, name.find('.')));
}

Group& GroupOf(const v1::ParameterInfo& parameter, std::vector<Group>* groups) {
  const std::string name = GroupName(parameter);
  for (Group& group : *groups) {
    if (group.name == name) return group;
  }
  groups->push_back({.name = name, .layer = std::max(-1, parameter.layer())});
  return groups->back();
}

// Recurrent layers first.
bool Before(const Group& a, const Group& b) {
  return (a.layer < 0) != (b.layer < 0) ? a.layer >= 0 : a.layer < b.layer;
}

}  // namespace

Layout LayoutOf(const v1::Job& job) {
  Layout layout;
  for (int i = 0; i < job.parameters_size(); ++i) {
    const v1::ParameterInfo& parameter = job.parameters(i);
    Group& group = GroupOf(parameter, &layout.groups);
    group.tensors.push_back(i);
    if (parameter.recurrent()) group.recurrent = i;
    if (absl::StrContains(parameter.name(), "bias_ih")) group.bias = i;
    double entries = 1.0;
    for (const int64_t extent : parameter.shape()) entries *= static_cast<double>(extent);
    layout.entries.push_back(std::max(1.0, entries));
    layout.is_matrix.push_back(parameter.shape_size() > 1);
    const double hidden = std::max(1, job.model().hidden_units());
    layout.usual_norms.push_back(std::sqrt(layout.entries.back() / (3.0 * hidden)));
  }
  std::stable_sort(layout.groups.begin(), layout.groups.end(), Before);
  layout.layers = static_cast<int>(std::count_if(layout.groups.begin(), layout.groups.end(),
                                                 [](const Group& g) { return g.layer >= 0; }));
  return layout;
}

}  // namespace gradwatch::alerts
