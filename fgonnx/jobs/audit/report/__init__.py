"""The report of an audit: computed from the files of its shards alone, whatever ran them."""
