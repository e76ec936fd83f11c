"""gptjax: a pure-function JAX/Flax GPT for text generation. docs/architecture.md has the map."""
