"""The load generator behind `minibroker bench`: a plan, producers, consumers, and what they measured."""
