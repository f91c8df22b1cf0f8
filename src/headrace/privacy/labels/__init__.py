"""Information flow by labels: what may reach whom, through requests, cached pages, adapters, passages and logs."""
