"""A server of trained models: OpenAI's completions, and a playground in the browser."""
