// This library as a host: it answers a stage's inputs with the stage's outputs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "array.h"
#include "model.h"

namespace vtr::tools {

// The inputs of a stage: a clip, sentences or tensors.
struct Question {
  std::string stage;
  std::string media;
  std::vector<std::string> texts;
  Arrays tensors;
};

struct Answer {
  Arrays arrays;
  std::string not_run;  // why there are none
};

class Host {
 public:
  explicit Host(const internal::Model &model) : model_(model) {}

  // vtr::internal::Error where the stage fails.
  Answer answer(const Question &question) const;
  // Run a graph: its outputs by name, debug outputs too.
  Arrays run(const std::string &graph, const Arrays &feed) const;
  // In what the graphs are computed, and why that is no proof of it; empty where it is one.
  const std::string &precision() const { return model_.manifest().graph_precision; }
  std::string note() const;

 private:
  Answer answer_media(const Question &question) const;
  Answer answer_in_graph(const std::string &stage, const Arrays &feed) const;

  const internal::Model &model_;
};

}  // namespace vtr::tools
