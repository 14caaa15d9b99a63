#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <utility>

#include "core/check.h"
#include "io/message.h"
#include "io/template_lexer.h"
#include "io/template_syntax.h"

namespace seer::chat {
namespace {

// Bounds the depth of recursion over the tree, here and where it runs.
constexpr int kMostExpressionNodes = 1000, kDeepestBlock = 50, kDeepestExpression = 100;

ExpressionPointer make(ExpressionKind kind, int line, std::string text = "") {
  return std::make_unique<Expression>(Expression{kind, line, std::move(text), {}, {}, {}});
}

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  Block run() { return parse_block({}); }

 private:
  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& take() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is(TokenKind kind, std::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).kind == kind && peek(ahead).text == text;
  }
  bool accept(TokenKind kind, std::string_view text) {
    if (!is(kind, text)) return false;
    take();
    return true;
  }
  bool accept_op(std::string_view text) { return accept(TokenKind::kOperator, text); }
  bool accept_name(std::string_view text) { return accept(TokenKind::kName, text); }

  std::string found() const {
    const Token& token = peek();
    return token.kind == TokenKind::kEnd || token.kind == TokenKind::kBlockEnd ||
                   token.kind == TokenKind::kOutputEnd
               ? "the end"
               : in_quotes(token.text);
  }
  [[noreturn]] void fail_expected(std::string_view what) const {
    fail_at(peek().line, fmt::format("expected {}, found {}", what, found()));
  }
  void expect_op(std::string_view text) {
    if (!accept_op(text)) fail_expected(in_quotes(text));
  }
  void expect_name(std::string_view text) {
    if (!accept_name(text)) fail_expected(in_quotes(text));
  }
  void expect(TokenKind kind, std::string_view what) {
    if (peek().kind != kind) fail_expected(what);
    take();
  }
  std::string take_name() {
    if (peek().kind != TokenKind::kName) fail_expected("a name");
    return take().text;
  }

  /// Statements up to a block that starts with one of `ends`, which is left for the caller.
  Block parse_block(std::initializer_list<std::string_view> ends) {
    if (++block_depth_ > kDeepestBlock) fail_at(peek().line, "blocks are nested too deep");
    Block block;
    while (peek().kind != TokenKind::kEnd) {
      if (peek().kind == TokenKind::kBlockBegin && peek(1).kind == TokenKind::kName &&
          std::find(ends.begin(), ends.end(), peek(1).text) != ends.end())
        break;
      parse_statement(block);
    }
    if (ends.size() > 0 && peek().kind == TokenKind::kEnd)
      fail_at(peek().line,
              fmt::format("expected {{% {} %}}, found the end of the template", *(ends.end() - 1)));
    --block_depth_;
    return block;
  }

  void parse_statement(Block& block) {
    const Token& token = take();
    Statement statement{.kind = StatementKind::kText, .line = token.line};
    if (token.kind == TokenKind::kText) {
      statement.text = token.text;
    } else if (token.kind == TokenKind::kOutputBegin) {
      statement.kind = StatementKind::kOutput;
      statement.value = parse_whole_expression();
      expect(TokenKind::kOutputEnd, "}}");
    } else {
      const std::string tag = take_name();
      if (tag == "set") {
        parse_set(statement);
      } else if (tag == "if") {
        parse_if(statement);
      } else if (tag == "for") {
        parse_for(statement);
      } else if ((tag == "break" || tag == "continue") && loop_depth_ > 0) {
        statement.kind = tag == "break" ? StatementKind::kBreak : StatementKind::kContinue;
        end_tag();
      } else if (tag == "generation") {  // marks what an assistant says; prints as it stands
        end_tag();
        Block inside = parse_block({"endgeneration"});
        end_block("endgeneration");
        std::move(inside.begin(), inside.end(), std::back_inserter(block));
        return;
      } else {
        fail_at(token.line, fmt::format("{{% {} %}} is not supported here", tag));
      }
    }
    block.push_back(std::move(statement));
  }

  void end_tag() { expect(TokenKind::kBlockEnd, "%}"); }
  void end_block(std::string_view name) {
    expect(TokenKind::kBlockBegin, "{%");
    expect_name(name);
    end_tag();
  }

  void parse_set(Statement& statement) {
    statement.kind = StatementKind::kSet;
    statement.names.push_back(take_name());
    if (accept_op(".")) statement.names.push_back(take_name());
    expect_op("=");
    statement.value = parse_whole_expression();
    end_tag();
  }

  void parse_if(Statement& statement) {
    statement.kind = StatementKind::kIf;
    for (;;) {
      Branch branch{parse_whole_expression(), {}};
      end_tag();
      branch.body = parse_block({"elif", "else", "endif"});
      statement.branches.push_back(std::move(branch));
      expect(TokenKind::kBlockBegin, "{%");
      if (!accept_name("elif")) break;
    }
    if (accept_name("else")) {
      end_tag();
      statement.branches.push_back({nullptr, parse_block({"endif"})});
      expect(TokenKind::kBlockBegin, "{%");
    }
    expect_name("endif");
    end_tag();
  }

  void parse_for(Statement& statement) {
    statement.kind = StatementKind::kFor;
    do statement.names.push_back(take_name());
    while (accept_op(","));
    expect_name("in");
    nodes_ = 0;
    statement.value = parse_or();
    if (accept_name("if")) statement.condition = parse_whole_expression();
    end_tag();
    ++loop_depth_;
    statement.body = parse_block({"else", "endfor"});
    --loop_depth_;
    expect(TokenKind::kBlockBegin, "{%");
    if (accept_name("else")) {
      end_tag();
      statement.branches.push_back({nullptr, parse_block({"endfor"})});
      expect(TokenKind::kBlockBegin, "{%");
    }
    expect_name("endfor");
    end_tag();
  }

  ExpressionPointer node(ExpressionKind kind, std::string text = "") {
    if (++nodes_ > kMostExpressionNodes) fail_at(peek().line, "an expression is too long");
    return make(kind, peek().line, std::move(text));
  }
  ExpressionPointer node(ExpressionKind kind, ExpressionPointer operand, std::string text = "") {
    ExpressionPointer expression = node(kind, std::move(text));
    expression->operands.push_back(std::move(operand));
    return expression;
  }

  ExpressionPointer parse_whole_expression() {
    nodes_ = 0;
    return parse_expression();
  }

  ExpressionPointer parse_expression() {
    if (++expression_depth_ > kDeepestExpression) fail_at(peek().line, "an expression is nested too deep");
    ExpressionPointer value = parse_or();
    while (accept_name("if")) {
      value = node(ExpressionKind::kChoice, std::move(value));
      value->operands.push_back(parse_or());
      value->operands.push_back(accept_name("else") ? parse_expression() : nullptr);
    }
    --expression_depth_;
    return value;
  }

  ExpressionPointer parse_or() {
    ExpressionPointer value = parse_and();
    while (accept_name("or")) {
      value = node(ExpressionKind::kOr, std::move(value));
      value->operands.push_back(parse_and());
    }
    return value;
  }

  ExpressionPointer parse_and() {
    ExpressionPointer value = parse_not();
    while (accept_name("and")) {
      value = node(ExpressionKind::kAnd, std::move(value));
      value->operands.push_back(parse_not());
    }
    return value;
  }

  ExpressionPointer parse_not() {
    int times = 0;
    while (accept_name("not")) ++times;
    ExpressionPointer value = parse_compare();
    for (; times > 0; --times) value = node(ExpressionKind::kNot, std::move(value));
    return value;
  }

  std::string take_comparison() {
    for (const std::string_view op : {"==", "!=", "<=", ">=", "<", ">"})
      if (accept_op(op)) return std::string(op);
    if (accept_name("in")) return "in";
    if (is(TokenKind::kName, "not") && is(TokenKind::kName, "in", 1)) {
      take();
      take();
      return "not in";
    }
    return "";
  }

  ExpressionPointer parse_compare() {
    ExpressionPointer first = parse_sum();
    std::string op = take_comparison();
    if (op.empty()) return first;
    ExpressionPointer value = node(ExpressionKind::kCompare, std::move(first));
    for (; !op.empty(); op = take_comparison()) {
      value->ops.push_back(op);
      value->operands.push_back(parse_sum());
    }
    return value;
  }

  /// A chain of operators of one rank, from the left.
  template <class Operand>
  ExpressionPointer parse_chain(std::initializer_list<std::string_view> ops, Operand&& operand) {
    ExpressionPointer value = operand();
    for (;;) {
      const auto op = std::find_if(ops.begin(), ops.end(), [&](std::string_view o) { return accept_op(o); });
      if (op == ops.end()) return value;
      value = node(ExpressionKind::kBinary, std::move(value), std::string(*op));
      value->operands.push_back(operand());
    }
  }

  ExpressionPointer parse_sum() {
    return parse_chain({"+", "-"}, [&] { return parse_concatenation(); });
  }
  ExpressionPointer parse_concatenation() {
    return parse_chain({"~"}, [&] { return parse_product(); });
  }
  ExpressionPointer parse_product() {
    return parse_chain({"*", "/", "//", "%"}, [&] { return parse_unary(); });
  }

  ExpressionPointer parse_unary() {
    const bool negative = accept_op("-");
    ExpressionPointer value = parse_postfix(parse_primary());
    if (negative) value = node(ExpressionKind::kNegative, std::move(value));
    if (is(TokenKind::kOperator, "**")) fail_at(peek().line, "the operator '**' is not supported");
    return parse_filters(std::move(value));
  }

  ExpressionPointer parse_primary() {
    const std::size_t begin = at_;
    const Token& token = take();
    switch (token.kind) {
      case TokenKind::kName:
        if (token.text == "true" || token.text == "True") return node(ExpressionKind::kTrue);
        if (token.text == "false" || token.text == "False") return node(ExpressionKind::kFalse);
        if (token.text == "none" || token.text == "None") return node(ExpressionKind::kNone);
        return node(ExpressionKind::kName, token.text);
      case TokenKind::kString: {
        std::string text = token.text;
        while (peek().kind == TokenKind::kString) text += take().text;
        return node(ExpressionKind::kString, std::move(text));
      }
      case TokenKind::kInteger:
        return node(ExpressionKind::kInteger, token.text);
      case TokenKind::kFloat:
        return node(ExpressionKind::kFloat, token.text);
      case TokenKind::kOperator:
        if (token.text == "(") return parse_parenthesis();
        if (token.text == "[") return parse_items("]", node(ExpressionKind::kList));
        if (token.text == "{") return parse_dict();
        [[fallthrough]];
      default:
        at_ = begin;
        fail_expected("a value");
    }
  }

  /// (a), or a tuple (a, b), which is taken as a list.
  ExpressionPointer parse_parenthesis() {
    if (accept_op(")")) return node(ExpressionKind::kList);
    ExpressionPointer value = parse_expression();
    if (!accept_op(",")) {
      expect_op(")");
      return value;
    }
    return parse_items(")", node(ExpressionKind::kList, std::move(value)));
  }

  ExpressionPointer parse_items(std::string_view close, ExpressionPointer list) {
    while (!accept_op(close)) {
      list->operands.push_back(parse_expression());
      if (!accept_op(",") && !is(TokenKind::kOperator, close)) fail_expected(in_quotes(close));
    }
    return list;
  }

  ExpressionPointer parse_dict() {
    ExpressionPointer dict = node(ExpressionKind::kDict);
    while (!accept_op("}")) {
      dict->operands.push_back(parse_expression());
      expect_op(":");
      dict->operands.push_back(parse_expression());
      if (!accept_op(",") && !is(TokenKind::kOperator, "}")) fail_expected("'}'");
    }
    return dict;
  }

  ExpressionPointer parse_postfix(ExpressionPointer value) {
    for (;;) {
      if (accept_op(".")) {
        value = node(ExpressionKind::kAttribute, std::move(value), take_name());
      } else if (accept_op("[")) {
        value = parse_subscript(std::move(value));
      } else if (accept_op("(")) {
        value = node(ExpressionKind::kCall, std::move(value));
        parse_arguments(*value);
      } else {
        return value;
      }
    }
  }

  ExpressionPointer parse_subscript(ExpressionPointer value) {
    const auto ends = [&] { return is(TokenKind::kOperator, ":") || is(TokenKind::kOperator, "]"); };
    value = node(ExpressionKind::kItem, std::move(value));
    value->operands.push_back(ends() ? nullptr : parse_expression());
    if (is(TokenKind::kOperator, ":")) {
      value->kind = ExpressionKind::kSlice;
      while (value->operands.size() < 4 && accept_op(":"))
        value->operands.push_back(ends() ? nullptr : parse_expression());
      value->operands.resize(4);
    } else if (value->operands[1] == nullptr) {
      fail_expected("an index");
    }
    expect_op("]");
    return value;
  }

  /// Behind the opening parenthesis.
  void parse_arguments(Expression& call) {
    while (!accept_op(")")) {
      if (peek().kind == TokenKind::kName && is(TokenKind::kOperator, "=", 1)) {
        std::string name = take().text;
        take();
        call.named.emplace_back(std::move(name), parse_expression());
      } else {
        call.operands.push_back(parse_expression());
      }
      if (!accept_op(",") && !is(TokenKind::kOperator, ")")) fail_expected("')'");
    }
  }

  ExpressionPointer parse_filters(ExpressionPointer value) {
    for (;;) {
      if (accept_op("|")) {
        value = node(ExpressionKind::kFilter, std::move(value), take_name());
        if (accept_op("(")) parse_arguments(*value);
      } else if (accept_name("is")) {
        value = parse_test(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExpressionPointer parse_test(ExpressionPointer value) {
    const bool negated = accept_name("not");
    value = node(ExpressionKind::kTest, std::move(value), take_name());
    if (accept_op("(")) {
      parse_arguments(*value);
    } else if (peek().kind == TokenKind::kString || peek().kind == TokenKind::kInteger ||
               is(TokenKind::kOperator, "[") ||
               (peek().kind == TokenKind::kName && !is_word_after_test(peek().text))) {
      value->operands.push_back(parse_postfix(parse_primary()));
    }
    return negated ? node(ExpressionKind::kNot, std::move(value)) : std::move(value);
  }

  static bool is_word_after_test(std::string_view name) {
    for (const std::string_view word : {"and", "or", "else", "if", "is", "in", "not"})
      if (name == word) return true;
    return false;
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int block_depth_ = 0, loop_depth_ = 0, expression_depth_ = 0, nodes_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) { return Parser(source).run(); }

}  // namespace seer::chat
