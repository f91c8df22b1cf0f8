"""The `split:k` profile: embedding, the first k blocks and the head stay here, the other blocks run on a server."""
