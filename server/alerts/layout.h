#ifndef GRADWATCH_SERVER_ALERTS_LAYOUT_H_
#define GRADWATCH_SERVER_ALERTS_LAYOUT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "gradwatch/v1/job.pb.h"

namespace gradwatch::alerts {

// Parameters that get their gradient together: those of one recurrent layer, the embedding or the
// read-out. Members are indices into Job.parameters.
struct Group {
  std::string name;          // "layer 0", "embedding", "readout"
  int layer = -1;            // The recurrent layer, or -1.
  std::vector<int> tensors;  // All of them, at least one.
  int recurrent = -1;        // The recurrent weights; -1 for none.
  int bias = -1;             // The bias with one entry for each unit and gate; -1 for none.
};

// How a job's parameters hang together. Constant for the life of a job.
struct Layout {
  std::vector<Group> groups;  // Recurrent layers in order, then the others.
  int layers = 0;             // The first so many of `groups`.
  // By parameter: number of entries, at least 1; whether it has two dimensions; the norm that
  // PyTorch's initial weights would have, uniform within 1 / sqrt(hidden units).
  std::vector<double> entries;
  std::vector<bool> is_matrix;
  std::vector<double> usual_norms;
};

Layout LayoutOf(const v1::Job& job);

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_LAYOUT_H_
