"""What is well and what is not: with this machine, the store and a cluster; each line says what to do."""
