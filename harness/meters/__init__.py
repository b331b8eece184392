"""One file a question: what an instance costs at rest, read from the host."""
