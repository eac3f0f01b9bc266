#include "server/jobs/job_filter.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "server/base/status.h"
#include "server/jobs/names.h"

namespace gradwatch::jobs {

// Reads from left to right; `at_` is the place of what comes next.
class JobFilterParser {
 public:
  explicit JobFilterParser(absl::string_view text) : text_(text) {}

  absl::StatusOr<JobFilter> Parse() {
    JobFilter filter;
    SkipBlanks();
    if (at_ == text_.size()) return filter;
    for (;;) {
      ASSIGN_OR_RETURN(JobFilter::Term term, ParseTerm());
      filter.terms_.push_back(std::move(term));
      SkipBlanks();
      if (at_ == text_.size()) return filter;
      const size_t begin = at_;
      if (Word() != "AND") return Error(begin, "expected AND between two terms");
    }
  }

 private:
  using Term = JobFilter::Term;

  absl::StatusOr<Term> ParseTerm() {
    SkipBlanks();
    const size_t begin = at_;
    const std::string name = Word();
    if (name == "state") return ParseState();
    if (name == "labels") return ParseLabel();
    return Error(begin, "expected state, labels.KEY or labels:KEY");
  }

  absl::StatusOr<Term> ParseState() {
    Term term;
    SkipBlanks();
    const size_t begin = at_;
    if (Take("!=")) {
      term.kind = Term::Kind::kNotState;
    } else if (Take("=")) {
      term.kind = Term::Kind::kState;
    } else {
      return Error(begin, "expected = or != after state");
    }
    SkipBlanks();
    const size_t value = at_;
    ASSIGN_OR_RETURN(const std::string name, Value());
    if (!v1::Job::State_Parse(absl::StrCat("STATE_", name), &term.state) &&
        !v1::Job::State_Parse(name, &term.state)) {
      return Error(value, absl::StrCat(Quoted(name),
                                       " is no state; allowed: QUEUED, RUNNING, PAUSING, PAUSED, "
                                       "CANCELLING, SUCCEEDED, FAILED, CANCELLED"));
    }
    return term;
  }

  absl::StatusOr<Term> ParseLabel() {
    Term term;
    const size_t begin = at_;
    if (Take(":")) {
      term.kind = Term::Kind::kHasLabel;
      SkipBlanks();
      ASSIGN_OR_RETURN(term.key, Value());
      return term;
    }
    if (!Take(".")) return Error(begin, "expected . or : after labels");
    const size_t key = at_;
    term.kind = Term::Kind::kLabel;
    term.key = Word();
    if (term.key.empty()) return Error(key, "expected the key of a label");
    SkipBlanks();
    const size_t sign = at_;
    if (!Take("=")) return Error(sign, "expected = after the key of a label");
    SkipBlanks();
    ASSIGN_OR_RETURN(term.value, Value());
    return term;
  }

  // Characters of keys, states and plain values.
  std::string Word() {
    const size_t begin = at_;
    while (at_ < text_.size() &&
           (absl::ascii_isalnum(text_[at_]) || text_[at_] == '_' || text_[at_] == '-')) {
      ++at_;
    }
    return std::string(text_.substr(begin, at_ - begin));
  }

  // A word, which may have dots here, or anything in double quotes.
  absl::StatusOr<std::string> Value() {
    const size_t begin = at_;
    if (Take("\"")) {
      const size_t end = text_.find('"', at_);
      if (end == absl::string_view::npos) return Error(begin, "this quote is never closed");
      const std::string value(text_.substr(at_, end - at_));
      at_ = end + 1;
      return value;
    }
    std::string value = Word();
    while (Take(".")) absl::StrAppend(&value, ".", Word());
    if (value.empty()) return Error(begin, "expected a value");
    return value;
  }

  bool Take(absl::string_view sign) {
    if (text_.substr(at_, sign.size()) != sign) return false;
    at_ += sign.size();
    return true;
  }

  void SkipBlanks() {
    while (at_ < text_.size() && absl::ascii_isspace(text_[at_])) ++at_;
  }

  absl::Status Error(size_t at, absl::string_view what) const {
    return InvalidFields({{"filter", absl::StrCat("column ", at + 1, ": ", what)}});
  }

  const absl::string_view text_;
  size_t at_ = 0;
};

absl::StatusOr<JobFilter> JobFilter::Parse(absl::string_view text) {
  if (text.size() > kLengthMax) {
    return InvalidFields({{"filter", absl::StrCat("has ", text.size(), " characters; at most ",
                                                  kLengthMax, " are allowed")}});
  }
  return JobFilterParser(text).Parse();
}

bool JobFilter::Matches(const v1::Job& job) const {
  for (const Term& term : terms_) {
    const auto label = job.labels().find(term.key);
    const bool has_label = label != job.labels().end();
    switch (term.kind) {
      case Term::Kind::kState:
        if (job.state() != term.state) return false;
        break;
      case Term::Kind::kNotState:
        if (job.state() == term.state) return false;
        break;
      case Term::Kind::kLabel:
        if (!has_label || label->second != term.value) return false;
        break;
      case Term::Kind::kHasLabel:
        if (!has_label) return false;
        break;
    }
  }
  return true;
}

}  // namespace gradwatch::jobs
