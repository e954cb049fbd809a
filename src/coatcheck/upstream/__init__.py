"""One upstream over HTTP: client, tokens, log-ins. Knows nothing of caches, nor of any upstream's calls."""
