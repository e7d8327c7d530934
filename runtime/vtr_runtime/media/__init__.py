"""Video files: which pictures they promise, and how to get the few that are wanted.

container opens, timeline lists packets (access knows the codecs), decode gives pictures, colour makes them RGB."""
