#include "io/chat_template.h"

#include <gtest/gtest.h>

#include "io/files.h"
#include "support/errors.h"

namespace seer {
namespace {

using test::error_names;

const std::vector<ChatMessage> kMessages = {{"system", " Be kind.\n"},
                                            {"user", "Hi"},
                                            {"assistant", "<think>\nhm\n</think>\n\nHello"},
                                            {"user", "Bye \"you\""}};

std::string render(std::string_view source, const std::vector<ChatMessage>& messages = kMessages,
                   bool add_generation_prompt = true) {
  return render_chat_template(source, messages, add_generation_prompt, "<s>", "</s>");
}
std::string value(const std::string& expression) { return render("{{ " + expression + " }}"); }

// In the style of each family of published templates; what they print was checked against Jinja 3.1.

TEST(ChatTemplate, HeadersStyle) {
  const char* source = R"({{- bos_token }}
{%- if not day is defined %}
    {%- if strftime_now is defined %}
        {%- set day = strftime_now("%d") %}
    {%- else %}
        {%- set day = "one day" %}
    {%- endif %}
{%- endif %}

{#- the system message goes first #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<system>\n" + day + "\n" }}
{%- if tools is not none %}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{{- system }}
{{- "<end>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<' + message['role'] + '>\n' + message['content'] | trim + '<end>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("no tools") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<assistant>\n' }}
{%- endif %}
)";
  const std::string rest =
      "<user>\nHi<end><assistant>\n<think>\nhm\n</think>\n\nHello<end><user>\nBye \"you\"<end>";
  EXPECT_EQ(render(source), "<s><system>\none day\nBe kind.<end>" + rest + "<assistant>\n");
  EXPECT_EQ(render(source, {kMessages.begin() + 1, kMessages.end()}, false),
            "<s><system>\none day\n<end>" + rest);
}

TEST(ChatTemplate, ThinkingStyle) {
  const char* source = R"({%- if messages[0].role == 'system' %}
    {{- '[' + messages[0].role + ']' + messages[0].content }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<t>') and message.content.endswith('</t>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '[' + message.role + ']' + message.content + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '[assistant]<think>' + thought.strip('\n') + '</think>' + content }}
        {%- else %}
            {{- '[assistant]' + content + '\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[assistant]' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think></think>' }}
    {%- endif %}
{%- endif %})";
  EXPECT_EQ(render(source), "[system] Be kind.\n[user]Hi\n[assistant]Hello\n[user]Bye \"you\"\n[assistant]");
  EXPECT_EQ(render(source, {kMessages.begin() + 1, kMessages.begin() + 3}, false),
            "[user]Hi\n[assistant]<think>hm</think>Hello");
}

TEST(ChatTemplate, OneLineStyle) {
  const char* source =
      "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
      "{{ '[system]none\\n' }}{% endif %}{{'[' + message['role'] + ']' + message['content'] + '\\n'}}"
      "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}";
  EXPECT_EQ(render(source, {kMessages[1]}), "[system]none\n[user]Hi\n[assistant]");
  EXPECT_EQ(render(source, {kMessages[0]}, false), "[system] Be kind.\n\n");
}

TEST(ChatTemplate, WhitespaceOfTags) {
  EXPECT_EQ(render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(render("a\n  {{ 1 }}\n  b"), "a\n  1\n  b");
  EXPECT_EQ(render("a \n {%- if true -%} \n b \n {%- endif -%} \n c"), "abc");
  EXPECT_EQ(render("a \n {{- 1 -}} \n b"), "a1b");
  EXPECT_EQ(render("a\n  {%+ if true %}b{% endif +%}\nc"), "a\n  b\nc");
  EXPECT_EQ(render("a\n  {# note #}\nb {#- x -#} c"), "a\nbc");
  EXPECT_EQ(render("x {% set a = 1 %}\ny"), "x y");
  EXPECT_EQ(render("a\r\nb\rc\n\n"), "a\nb\nc\n");
  EXPECT_EQ(render("{ {x} }{"), "{ {x} }{");
  EXPECT_EQ(render("{{ '}}' }}{{ {'a': {}}|tojson }}"), "}}{\"a\": {}}");
  EXPECT_EQ(render(""), "");
}

TEST(ChatTemplate, Expressions) {
  const std::pair<const char*, const char*> cases[] = {
      {"1 + 2 * 3 - 4 // 3", "6"},
      {"-7 // 2 ~ ' ' ~ -7 % 3", "-4 2"},
      {"7 / 2", "3.5"},
      {"6 / 2", "3.0"},
      {"'a' 'b' + 'c' ~ 1 ~ none ~ true ~ nothing", "abc1NoneTrue"},
      {"'ab' * 2", "abab"},
      {"1 < 2 < 3 and not 3 < 2", "True"},
      {"1 == 1.0 and true == 1 and 'a' != 'b'", "True"},
      {"'a' in 'abc' and 'x' not in ['y'] and 'role' in messages[0]", "True"},
      {"'y' if messages|length > 9 else 'n'", "n"},
      {"'y' if false", ""},
      {"'' or 'z'", "z"},
      {"messages[1:3]|length ~ messages[-1].role ~ messages[::-1][3].role", "2usersystem"},
      {"'h\u00e9llo'[1:3] ~ 'h\u00e9llo'|length ~ 'h\u00e9llo'[::-1]", "\u00e9l5oll\u00e9h"},
      {"messages[9] is defined", "False"},
      {"messages[0].nothing is not defined", "True"},
      {"nothing|default('d') ~ ''|default('e', true)", "de"},
      {"'  x '|trim|upper ~ 'Y'|lower ~ '\u00e9'|upper", "Xy\u00c9"},
      {"'--a--'.strip('-') ~ 'a,b,c'.split(',', 1)[1] ~ 'aXa'.replace('X', '-')", "ab,ca-a"},
      {"[1, 2]|join('+') ~ [1, 2]|first ~ (1, 2)|last", "1+212"},
      {"messages[1]|tojson", "{\"role\": \"user\", \"content\": \"Hi\"}"},
      {"{'a': [1, 2.5, none, true, '\\n']}|tojson", "{\"a\": [1, 2.5, null, true, \"\\n\"]}"},
      {"[1, {}]|tojson(indent=2)", "[\n  1,\n  {}\n]"},
      {"messages|selectattr('role', 'equalto', 'user')|list|length", "2"},
      {"messages|rejectattr('role', 'equalto', 'user')|list|length", "2"},
      {"range(5, 0, -2)|list|tojson", "[5, 3, 1]"},
      {"messages[0].get('nothing', 'f') ~ messages[0].items()|length", "f2"},
      {"1 is number and 'x' is string and {} is mapping and [] is iterable and none is none", "True"},
      {"2 is even and 3 is odd and 2 is equalto 2 and 1 is in [1] and false is false", "True"},
      {"tools is none and documents is none and eos_token == '</s>'", "True"},
      {"\"\\u00e9\\x41\\t\\\\\"",
       "\u00e9"
       "A\t\\"},
  };
  for (const auto& [expression, expected] : cases) EXPECT_EQ(value(expression), expected) << expression;
}

TEST(ChatTemplate, LoopsAndScopes) {
  EXPECT_EQ(render("{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content[0] }}"
                   "{{ ',' if not loop.last }}{% endfor %}"),
            "1H,2B");
  EXPECT_EQ(render("{% for x in [] %}a{% else %}b{% endfor %}"), "b");
  EXPECT_EQ(render("{% set x = 1 %}{% for m in messages %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}"),
            "22221");
  EXPECT_EQ(render("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
                   "{{ ns.n }}"),
            "4");
  EXPECT_EQ(render("{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}"), "a1b2");
  EXPECT_EQ(render("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
                   "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
            "02");
  EXPECT_EQ(render("{% if true %}{% set y = 2 %}{% endif %}{{ y }}"), "2");
  EXPECT_EQ(render("{% generation %}a{% endgeneration %}"), "a");
}

TEST(ChatTemplate, NamesWhatItDoesNotSupport) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{% macro f() %}{% endmacro %}", "line 2: {% macro %}"},
      {"{% set x %}a{% endset %}", "expected '='"},
      {"{{ x|nope }}", "the filter 'nope'"},
      {"{{ 1 is nope }}", "the test 'nope'"},
      {"{{ strftime_now('%d') }}", "'strftime_now' is undefined"},
      {"{{ x.y }}", "'x' is undefined"},
      {"{{ nope() }}", "'nope' is undefined"},
      {"{{ 'a'.title() }}", "'title' is undefined"},
      {"{{ 2 ** 3 }}", "'**'"},
      {"{{ messages }}", "printing a list"},
      {"{{ 1 + 'a' }}", "a number + a string"},
      {"{{ 1 // 0 }}", "division by zero"},
      {"{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"{{ 99999999999999999999 }}", "64 bits"},
      {"{{ 'a' < 1 }}", "no order"},
      {"{% for x in 5 %}{% endfor %}", "expected a list, found a number"},
      {"{% set ns.x = 1 %}", "expected a namespace"},
      {"{{ raise_exception('stop\nnow') }}", "refuses the messages: 'stop\\nnow'"},
      {"{{ 'a }}", "closing quote"},
      {"{{ (1 }}", "closes no bracket"},
      {"{{ 1", "without its end"},
      {"{# x", "a comment"},
      {"{% if true %}", "expected {% endif %}"},
      {"{% endfor %}", "{% endfor %} is not supported here"},
      {"{% if %}{% endif %}", "a value, found the end"},
      {"{{ 1 2 }}", "found '2'"},
      {"{{ ; }}", "';' is not supported"},
      {"{{ '\\q' }}", "escape"},
      {"{{ 'a' | tojson(sort=1) }}", "'sort'"},
      {"{{ range(1000000000) }}", "range"},
      {"{{ \xff }}", "UTF-8 at byte 3"},
  };
  for (const auto& [source, part] : cases)
    EXPECT_TRUE(error_names([&, text = source] { render(text); }, {"chat_template", part})) << source;
  EXPECT_TRUE(error_names([] { render("", {{"user", "\xff"}}); }, {"message", "UTF-8"}));
}

TEST(ChatTemplate, BoundsWhatATemplateMayTake) {
  const auto refused = [](const std::string& source, std::string_view part) {
    return error_names([&] { render(source); }, {"chat_template", part});
  };
  const auto repeat = [](std::string_view text, int times) {
    std::string result;
    for (int i = 0; i < times; ++i) result += text;
    return result;
  };
  EXPECT_TRUE(refused("{{ " + repeat("(", 100'000) + repeat(")", 100'000) + " }}", "nested too deep"));
  EXPECT_TRUE(refused("{{ " + repeat("[", 100'000) + repeat("]", 100'000) + " }}", "nested too deep"));
  EXPECT_TRUE(refused("{{ 1" + repeat("+1", 100'000) + " }}", "too long"));
  EXPECT_TRUE(refused("{{ x" + repeat(".x", 100'000) + " }}", "too long"));
  EXPECT_TRUE(refused("{{ " + repeat("not ", 100'000) + "1 }}", "too long"));
  EXPECT_TRUE(refused(repeat("{% if 1 %}", 10'000), "nested too deep"));
  EXPECT_TRUE(refused(std::string(2 << 20, 'x'), "at most"));
  const std::string loop = "{% for a in range(100000) %}";
  EXPECT_TRUE(refused(loop + loop + "{% endfor %}{% endfor %}", "too many steps"));
  EXPECT_TRUE(refused("{{ 'x' * 9000000000 }}", "longer than"));
  EXPECT_TRUE(
      refused("{% set n = namespace(x='xxxxxxxx') %}" + loop + "{% set n.x = n.x ~ n.x %}{% endfor %}",
              "too many steps"));
  EXPECT_TRUE(
      refused("{% set n = namespace(x=[]) %}" + loop + "{% set n.x = [n.x] %}{% endfor %}", "nested deeper"));
  EXPECT_TRUE(
      refused("{% set n = namespace(x=[1]) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}"
              "{% endfor %}{{ n.x|tojson }}",
              "too many steps"));
  EXPECT_EQ(render("{% set n = namespace() %}{% set n.x = n %}{{ n.x.x == n }}"), "True");
}

}  // namespace
}  // namespace seer
