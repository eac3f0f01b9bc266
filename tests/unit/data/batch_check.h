#ifndef GRADWATCH_TESTS_UNIT_DATA_BATCH_CHECK_H_
#define GRADWATCH_TESTS_UNIT_DATA_BATCH_CHECK_H_

#include <gtest/gtest.h>

#include "server/data/source.h"

namespace gradwatch::data {

// Expects everything that Batch and TaskShape promise of any batch.
inline void ExpectWellFormed(const TaskShape& shape, const Batch& batch) {
  ASSERT_GE(batch.rows, 1);
  ASSERT_LE(batch.rows, shape.rows_max);
  ASSERT_GE(batch.time_steps, 1);
  ASSERT_LE(batch.time_steps, shape.time_steps);
  const size_t rows = static_cast<size_t>(batch.rows);
  const size_t cells = static_cast<size_t>(batch.time_steps) * rows;
  const size_t targets = shape.loss_at_last ? rows : cells;
  const size_t outputs = static_cast<size_t>(shape.outputs);
  ASSERT_EQ(batch.features, shape.features);
  ASSERT_EQ(batch.outputs, shape.classification ? 0 : shape.outputs);
  ASSERT_EQ(batch.inputs.size(), cells * static_cast<size_t>(shape.features));
  ASSERT_EQ(batch.tokens.size(), shape.vocabulary > 0 ? cells : 0);
  ASSERT_EQ(batch.target_values.size(), shape.classification ? 0 : targets * outputs);
  ASSERT_EQ(batch.target_classes.size(), shape.classification ? targets : 0);
  ASSERT_EQ(batch.weights.size(), targets);
  ASSERT_EQ(batch.lengths.size(), rows);
  ASSERT_EQ(batch.restart.size(), rows);
  ASSERT_EQ(batch.origins.size(), rows);

  EXPECT_EQ(batch.lengths[0], batch.time_steps);
  for (size_t row = 0; row < rows; ++row) {
    EXPECT_GE(batch.lengths[row], 1);
    EXPECT_LE(batch.lengths[row], batch.lengths[row == 0 ? 0 : row - 1]);
  }
  for (const int32_t token : batch.tokens) EXPECT_TRUE(token >= 0 && token < shape.vocabulary);
  for (const int32_t target : batch.target_classes) {
    EXPECT_TRUE(target >= 0 && target < shape.outputs);
  }
  for (size_t t = 0; t < static_cast<size_t>(batch.time_steps); ++t) {
    for (size_t row = 0; row < rows; ++row) {
      if (static_cast<int32_t>(t) < batch.lengths[row]) continue;
      const size_t features = static_cast<size_t>(batch.features);
      for (size_t f = 0; f < features; ++f) {
        EXPECT_EQ(batch.inputs[(t * rows + row) * features + f], 0.0);
      }
      EXPECT_TRUE(batch.tokens.empty() || batch.tokens[t * rows + row] == 0);
      EXPECT_TRUE(shape.loss_at_last || batch.weights[t * rows + row] == 0.0);
    }
  }
}

inline void ExpectSame(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.time_steps, b.time_steps);
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.features, b.features);
  EXPECT_EQ(a.outputs, b.outputs);
  EXPECT_EQ(a.inputs, b.inputs);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.target_values, b.target_values);
  EXPECT_EQ(a.target_classes, b.target_classes);
  EXPECT_EQ(a.lengths, b.lengths);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.restart, b.restart);
  EXPECT_EQ(a.origins, b.origins);
}

}  // namespace gradwatch::data

#endif  // GRADWATCH_TESTS_UNIT_DATA_BATCH_CHECK_H_
