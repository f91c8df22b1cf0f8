"""Private inference, with the price and the proof of each way printed."""
