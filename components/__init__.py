"""What runs in a container: one package a step, and the few modules that the steps share."""
