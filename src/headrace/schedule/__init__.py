"""Who runs next and where its state lives. Pure Python, no clock: the engine and the simulator drive it."""
