"""What runs where people are: compiling the pipeline, running it here, asking its champion. Never imports torch."""
