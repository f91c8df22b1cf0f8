"""What answers rest on outside the model: sources and tools."""
