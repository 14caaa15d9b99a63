// Completes a text with sparse attention: complete MODEL GATE DENSITY < text
#include <seer/model.h>

#include <iostream>
#include <iterator>
#include <string>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: complete MODEL GATE DENSITY < text\n";
    return 2;
  }
  try {
    const std::string prompt{std::istreambuf_iterator<char>(std::cin), {}};
    seer::Model model(argv[1]);
    model.load_gate(argv[2]);
    const seer::Completion completion =
        model.complete(prompt, {.sparsity = {.value = std::stod(argv[3])},
                                .max_new_tokens = 32,
                                .on_text = [](std::string_view piece) { std::cout << piece << std::flush; }});
    std::cerr << "\n" << completion.prompt_tokens << " tokens, density " << completion.density << "\n";
  } catch (const seer::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
