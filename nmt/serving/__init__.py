"""Translation over HTTP: requests in, JSON out, in batches across requests."""
