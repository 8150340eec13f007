"""Supply: who makes the tokens we sell, at which price, and what we owe them. How they perform is `assurance`'s."""
