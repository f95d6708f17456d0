"""Plan: looks at the source, decides the splits, and cuts the work into chunks."""
