"""What the README claims, measured side by side with what one would do otherwise."""
