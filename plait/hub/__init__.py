"""Models of a hub: `org/name@revision`. Headers by range requests, weights on demand, everything kept in caches.

huggingface_hub does what it can: names, tokens, endpoints, its cache, and pushing. plait adds parts of files, going on
with a cut download across runs, and what must be known before a download begins.
"""
