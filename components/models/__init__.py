"""Networks and their training: needs torch, numpy and pyarrow alone, so that it runs on a bare GPU machine."""
