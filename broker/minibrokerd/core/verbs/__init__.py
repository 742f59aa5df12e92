"""What is done to what the core knows: a function for each operation, and for what time does by itself."""
