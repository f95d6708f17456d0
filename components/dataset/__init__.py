"""What a dataset is on disk: shards of labelled images in the store, and a small manifest that names them."""
