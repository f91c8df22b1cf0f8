"""Private inference with its price and its proof."""
