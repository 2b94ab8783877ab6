"""Run `fgonnx audit`: a plan of shards, one function that does a shard, runners, and a report of the files."""
