// The subcommands: each function adds one to `parent`, with its flags and a callback that does the work.
#pragma once

namespace CLI {
class App;
}

void add_info(CLI::App& parent);
