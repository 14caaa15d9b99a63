// Chat templates, step 2: tokens to a tree.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace seer::chat {

enum class ExpressionKind {
  kString,   // text
  kInteger,  // text
  kFloat,    // text
  kTrue,
  kFalse,
  kNone,
  kName,       // text
  kList,       // operands
  kDict,       // operands: key, value, key, value...
  kAttribute,  // operands[0].text
  kItem,       // operands[0][operands[1]]
  kSlice,      // operands[0][operands[1]:operands[2]:operands[3]]; null where left out
  kCall,       // operands[0](operands[1]..., named)
  kFilter,     // operands[0] | text(operands[1]..., named)
  kTest,       // operands[0] is text(operands[1]...)
  kNot,
  kNegative,
  kBinary,   // operands[0] text operands[1]: + - * / // % ~
  kCompare,  // operands[0] ops[0] operands[1] ops[1] operands[2]...: == != < <= > >= in, "not in"
  kAnd,
  kOr,
  kChoice,  // operands[0] if operands[1] else operands[2]; null without else
};

struct Expression;
using ExpressionPointer = std::unique_ptr<Expression>;

struct Expression {
  ExpressionKind kind;
  int line;
  std::string text;
  std::vector<ExpressionPointer> operands;
  std::vector<std::string> ops;
  std::vector<std::pair<std::string, ExpressionPointer>> named;
};

enum class StatementKind {
  kText,    // text
  kOutput,  // value
  kSet,     // names[0] = value, or names[0].names[1] = value
  kIf,      // branches
  kFor,     // for names in value if condition: body; branches[0] is its else
  kBreak,
  kContinue,
};

struct Statement;
using Block = std::vector<Statement>;

/// `body` when `condition` holds; an else has none.
struct Branch {
  ExpressionPointer condition;
  Block body;
};

struct Statement {
  StatementKind kind;
  int line;
  std::string text;
  std::vector<std::string> names;
  ExpressionPointer value, condition;
  Block body;
  std::vector<Branch> branches;
};

/// Parses a template. Throws Error naming line and construct where it is outside the subset or nested too
/// deep.
Block parse_template(std::string_view source);

}  // namespace seer::chat
